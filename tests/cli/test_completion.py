"""Completion in bash, zsh and fish: each shell loads what vbench prints for it and offers commands and options."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# A program `vbench` on the path, because completion calls it by this name.
LOAD = {
    "bash": 'eval "$(_VBENCH_COMPLETE=source_bash vbench)"; COMP_WORDS=(vbench {words}); COMP_CWORD={last}; '
    '_vbench_completion vbench; printf "%s\\n" "${{COMPREPLY[@]}}"',
    "zsh": 'autoload -Uz compinit; compinit -u -D; eval "$(_VBENCH_COMPLETE=source_zsh vbench)"; '
    'echo "${{_comps[vbench]}}"; env _TYPER_COMPLETE_ARGS="vbench {words}" _VBENCH_COMPLETE=complete_zsh vbench',
    "fish": '_VBENCH_COMPLETE=source_fish vbench | source; complete -C "vbench {words}"',
}
OPTIONS = {"bash": (), "zsh": ("-f",), "fish": ("--no-config",)}


@pytest.mark.parametrize(("words", "offered"), [("pro", "profile"), ("run --sha", "--shard"), ("data ver", "verify")])
@pytest.mark.parametrize("shell", LOAD)
def test_a_shell_completes_commands_and_options(shell: str, words: str, offered: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    program = tmp_path / "vbench"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "from bench.cli.app import main; main()" "$@"\n')
    program.chmod(0o755)
    script = LOAD[shell].format(words=words, last=len(words.split()))
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path)}
    command = [shell, *OPTIONS[shell], "-c", script]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert offered in done.stdout, done.stderr
    if shell == "zsh":
        assert done.stdout.startswith("_vbench_completion")


def test_each_shell_has_its_script() -> None:
    for shell in LOAD:
        environment = {**os.environ, "_VBENCH_COMPLETE": f"source_{shell}"}
        command = [sys.executable, "-c", "import sys; sys.argv = ['vbench']; from bench.cli.app import main; main()"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert "_VBENCH_COMPLETE=complete_" in done.stdout, done.stderr
