"""The history of a metric in a terminal: a line a commit, then the steps."""

from bench.cli.console import print_table, print_text
from bench.comparison.history import History, Turn
from bench.comparison.steps import commits_to_show
from bench.comparison.wording import one_line, p_value, percent
from bench.core.units import format_value, plural

FEWEST = 10


def show_history(history: History) -> None:
    """Every commit with its value, marked where the level changed; then each step in a sentence."""
    firsts = {turn.first.commit: turn for turn in history.turns}
    rows = [
        (
            moment.started_at[:16],
            one_line(moment.commit[:10]),
            format_value(moment.value, history.unit),
            moment.runs,
            _mark(firsts.get(moment.commit)),
        )
        for moment in history.moments
    ]
    print_text(one_line(f"{history.metric} of {history.case.title}"))
    print_table(("measured", "commit", "value", "runs", ""), rows, right=("value", "runs"))
    for runs, why in _left_out(history):
        if runs:
            print_text(f"{plural(runs, 'run')} left out: {why}")
    if history.order == "measured" and len(history.moments) > 1:
        print_text(
            "in the order of measuring: git here does not know all of these commits, nor are all their dates recorded"
        )
    for turn in history.turns:
        print_text(_sentence(turn, history.unit))
    if not history.turns:
        print_text(f"no step in {plural(len(history.moments), 'commit')}{_unseen(history)}")


def _unseen(history: History) -> str:
    """What a search in noise cannot have found."""
    if history.is_exact:
        return ""
    needed = commits_to_show(len(history.moments))
    if needed is None:
        return f"; fewer than {FEWEST} commits cannot show one"
    return f"; one that lasts shows once about {needed} commits have it, if it is clear"


def _left_out(history: History) -> list[tuple[int, str]]:
    return [
        (history.unknown, "no commit is known of them"),
        (history.uncommitted, "measured with edits that their commit does not hold, or where git could not tell"),
        (history.in_turns, "measured by vbench ab, in turns with another side's"),
        (history.throttled, "throttled, so slow for another reason than their code"),
        (history.unlike, f"not measured as the newest was: {', '.join(history.differing)}"),
    ]


def _mark(turn: Turn | None) -> str:
    return "" if turn is None else f"{turn.verdict} from here: {_change(turn)}"


def _sentence(turn: Turn, unit: str) -> str:
    name = "first bad commit" if turn.verdict == "worse" else f"first commit that is {turn.verdict}"
    levels = f"{format_value(turn.step.before, unit)} before, {format_value(turn.step.after, unit)} after"
    sure = f", {p_value(turn.step.p)}" if turn.step.p > 0 else ""
    return (
        f"{name}: {one_line(turn.first.commit)} ({_change(turn)}: {levels}{sure}); "
        f"the last before it: {one_line(turn.last_before.commit)}"
    )


def _change(turn: Turn) -> str:
    return "changed" if turn.change is None else percent(turn.change)
