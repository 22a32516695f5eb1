"""The page of a metric over commits, and the feed of its regressions."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

from bench.core.repository import Repository
from bench.reporting.history_page import write_alarm_feed, write_history_page, write_regression_feed

REPOSITORY = Repository(address="https://github.com/owner/name")
ATOM = "{http://www.w3.org/2005/Atom}"


def history(case: str = "c3d") -> dict[str, Any]:
    """Four commits at 10 ms, then two at 12 ms."""
    commits = [
        {
            "commit": f"{i}" * 40,
            "started_at": f"2025-03-0{i}T00:00:00+00:00",
            "value": 10.0 if i < 5 else 12.0,
            "runs": 5,
        }
        for i in range(1, 7)
    ]
    step = {"index": 4, "before": 10.0, "after": 12.0, "p": 0.001}
    change = {"first": commits[4], "last_before": commits[3], "step": step, "verdict": "worse"}
    return {"metric": "latency.p50_ms", "case": case, "unit": "ms", "commits": commits, "changes": [change]}


def test_a_history_has_every_commit_and_the_first_of_a_new_level(make: SimpleNamespace, tmp_path: Path) -> None:
    html = write_history_page(tmp_path / "h.html", history()).read_text(encoding="utf-8")
    page = make.page(html)
    assert [row[2] for row in page.tables["commit-table"][1:]] == ["10 ms"] * 4 + ["12 ms"] * 2
    assert [row[4] for row in page.tables["commit-table"][1:]] == ["–"] * 4 + ["worse", "–"]
    assert "10 ms before, 12 ms after (+20.0 %); the last commit before is 4444444444." in page.text
    heights = [float(y) for y in re.findall(r'<circle class="\w+" cx="[\d.]+" cy="([\d.]+)"', html)]
    assert len(heights) == 6
    assert len(set(heights[:4])) == len(set(heights[4:])) == 1
    assert heights[0] > heights[5], "a larger value is higher up"


def test_points_lead_to_the_rows_of_their_commits(make: SimpleNamespace, tmp_path: Path) -> None:
    html = write_history_page(tmp_path / "h.html", history()).read_text(encoding="utf-8")
    for number in range(1, 7):
        assert f'href="#commit-{number}"' in html
        assert f'<tr id="commit-{number}">' in html


def test_commits_and_steps_lead_to_the_repository_if_there_is_one(tmp_path: Path) -> None:
    facts = history()
    facts["commits"][0]["commit"] = "<b>"
    html = write_history_page(tmp_path / "h.html", facts, repository=REPOSITORY).read_text(encoding="utf-8")
    place = "https://github.com/owner/name"
    assert f'<th scope="row"><a href="{place}/commit/{"2" * 40}">{"2" * 40}</a></th>' in html
    assert f'<a href="{place}/compare/{"4" * 40}...{"5" * 40}">What changed between the two</a>' in html
    assert html.count(f'"{place}/commit/') == 5, "what is no hash has no page"
    feed = ElementTree.parse(write_regression_feed(tmp_path / "f.xml", facts, repository=REPOSITORY)).getroot()
    (link,) = feed.findall(f"{ATOM}entry/{ATOM}link")
    assert link.attrib == {"rel": "alternate", "href": f"{place}/commit/{'5' * 40}"}
    plain = write_history_page(tmp_path / "h.html", facts).read_text(encoding="utf-8")
    assert "https://" not in plain
    assert ElementTree.parse(write_regression_feed(tmp_path / "f.xml", facts)).find(f".//{ATOM}link") is None


def test_the_page_says_which_runs_are_left_out(make: SimpleNamespace, tmp_path: Path) -> None:
    html = write_history_page(tmp_path / "h.html", history(), notes=["2 runs: <unlike>"]).read_text(encoding="utf-8")
    assert "Left out" in make.page(html).text
    assert "2 runs: <unlike>" in make.page(html).text


def test_a_feed_has_one_entry_per_regression(tmp_path: Path) -> None:
    feed = ElementTree.parse(write_regression_feed(tmp_path / "feed.xml", history("<b>\u202e"))).getroot()
    (entry,) = feed.findall(f"{ATOM}entry")
    assert entry.findtext(f"{ATOM}title") == "latency.p50_ms of <b>\\u202e is worse from 5555555555 on"
    assert entry.findtext(f"{ATOM}updated") == "2025-03-05T00:00:00+00:00"
    ids = {entry.findtext(f"{ATOM}id"), feed.findtext(f"{ATOM}id")}
    assert len(ids) == 2
    assert feed.findtext(f"{ATOM}updated") == "2025-03-06T00:00:00+00:00"


def test_a_feed_tells_machines_apart_that_became_worse_at_one_commit(tmp_path: Path) -> None:
    facts = history()
    change = facts["changes"][0]
    facts["machines"] = [{"id": name} for name in ("a1", "b2")]
    facts["changes"] = [{**change, "machine": name} for name in ("a1", "b2")]
    feed = ElementTree.parse(write_regression_feed(tmp_path / "feed.xml", facts)).getroot()
    entries = feed.findall(f"{ATOM}entry")
    assert len({entry.findtext(f"{ATOM}id") for entry in entries}) == 2
    titles = [str(entry.findtext(f"{ATOM}title")) for entry in entries]
    assert [title.partition(" is ")[2] for title in titles] == [
        f"worse on {name} from 5555555555 on" for name in ("b2", "a1")
    ]


def test_a_feed_of_alarms_has_a_link_and_a_title_for_each(tmp_path: Path) -> None:
    moved = {"case": "net", "metric": "macs.forward", "change": 2e-4, "machine": ""}
    alarm = {"first": "5" * 40, "measured_at": "2025-03-05T00:00:00+00:00", "causes": [], "moved": [moved]}
    overview = {"alarms": [alarm], "machines": {}}
    feed = ElementTree.parse(write_alarm_feed(tmp_path / "feed.xml", overview, repository=REPOSITORY)).getroot()
    (entry,) = feed.findall(f"{ATOM}entry")
    assert entry.findtext(f"{ATOM}title") == "Worse from 5555555555 on: 1 metric"
    assert entry.findtext(f"{ATOM}content") == "net: macs.forward +0.020 %"
    link = entry.find(f"{ATOM}link")
    assert link is not None
    assert link.get("href") == f"https://github.com/owner/name/commit/{'5' * 40}"
    plain = ElementTree.parse(write_alarm_feed(tmp_path / "feed.xml", overview)).getroot()
    assert plain.find(f".//{ATOM}link") is None
