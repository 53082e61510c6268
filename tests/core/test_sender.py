"""How calls wait, are tried again or dropped, and that whoever sends them waits for nothing."""

import json
import threading
import time

import pytest

from fnas_jax.core import sender, stages
from fnas_jax.core.sender import Sender, Sent
from tests.core.test_tracking import Service


@pytest.fixture
def note(tmp_path):
    return sender.note_of(tmp_path, "it")


def to(service, note):
    return Sender("It", lambda: service, note)


def until(what):
    limit = time.monotonic() + 30
    while not what() and time.monotonic() < limit:
        time.sleep(0.002)
    assert what()


class Choosy(Service):
    """Refuses one step, as it would for ever."""

    def __init__(self, step, error):
        super().__init__()
        self.step, self.error, self.tries = step, error, 0

    def log(self, step, numbers):
        if step == self.step:
            self.tries += 1
            raise self.error
        super().log(step, numbers)


def test_what_is_refused_is_dropped_and_all_else_is_sent(note, caplog, monkeypatch):
    monkeypatch.setattr(sender, "RETRY_SECONDS", 0.001)
    service = Choosy(1, ValueError("no name"))
    mine = to(service, note)
    for step in range(3):
        mine.log(step, {})
    until(lambda: service.calls[-1:] == [("log", 2, {})])
    mine.keep({}, [])
    mine.close(True, 30.0)
    assert service.tries == sender.TRIES
    assert service.calls == [("log", 0, {}), ("log", 2, {}), ("keep", {}, []), ("close", True)]
    assert [record.message for record in caplog.records] == [
        "It refuses something (no name): the search goes on, and all else is sent",
        "It has not got all of the search: refused: 1",
    ]


@pytest.mark.parametrize("error", [ValueError("no name"), ConnectionError("broken pipe")])
def test_at_the_end_one_that_fails_holds_up_no_other(note, error):
    service, held = Choosy(0, error), threading.Event()
    mine = Sender("It", lambda: (held.wait(30), service)[1], note)
    mine.log(0, {})
    mine.log(1, {})
    mine._ending = True
    held.set()
    mine.close(True, 30.0)
    assert service.calls == [("log", 1, {}), ("close", True)]
    refused = isinstance(error, ValueError)  # for good; else the same command sends both
    assert sender.read(note) == Sent("here", 2 if refused else 0, refused)


def test_what_failed_long_before_the_end_is_tried_once_more_there(note):
    service = Service(failures=1)
    mine = to(service, note)
    mine.log(0, {})
    until(lambda: not service.failures)
    mine.log(1, {})
    mine.close(True, 30.0)
    assert service.calls == [("log", 0, {}), ("log", 1, {}), ("close", True)]


def test_one_that_hangs_is_waited_for_so_long_and_no_longer(note, caplog, monkeypatch):
    held, names = threading.Event(), []
    service = Service()
    service.log = lambda step, numbers: held.wait(60)
    mine = to(service, note)
    mine.log(0, {})
    join = mine._thread.join

    def joined(seconds):
        names.extend(stage.name for stage in stages._now.stages)
        join(seconds)

    monkeypatch.setattr(mine._thread, "join", joined)
    began = time.monotonic()
    mine.close(True, 0.1)
    assert time.monotonic() - began < 30
    assert names == ["sending to It"]
    told = "It has not got all of the search: calls not sent: 2 (the same command sends them)"
    assert told in caplog.text
    held.set()


def test_one_that_cannot_be_reached_when_a_search_goes_on_gets_all_of_it_later(
    note, caplog, monkeypatch
):
    monkeypatch.setattr(sender, "RETRY_SECONDS", 0.001)
    service, errors = Service(), [ConnectionError("down"), ConnectionError("down")]

    def start():
        if errors:
            raise errors.pop()
        return service

    mine = Sender("It", start, note)
    mine.log(0, {})
    until(lambda: service.calls)
    mine.close(True, 30.0)
    assert service.calls == [("log", 0, {}), ("close", True)]
    assert [r.message for r in caplog.records] == [sender.NOT_BEGUN % ("It", "down")]


def test_the_oldest_are_left_out_where_too_much_waits_which_is_told(note, caplog, monkeypatch):
    monkeypatch.setattr(sender, "MOST", 3)
    service, held = Service(), threading.Event()
    mine = Sender("It", lambda: (held.wait(60), service)[1], note)
    for step in range(10):
        mine.log(step, {})
    held.set()
    mine.close(True, 60)
    assert [call[1] for call in service.calls[:-1]] == [0, 8, 9]
    assert service.calls[-1] == ("close", True)
    assert "It has not got all of the search: calls not sent: 7 (the same" in caplog.text
    assert sender.read(note) == Sent("here", 0, False)


def test_another_process_sends_what_this_one_could_not_and_no_more(note):
    one = Service()
    mine = to(one, note)
    mine.log(0, {})
    mine.close(False, 30.0)
    assert sender.read(note) == Sent("here", 1, False)
    two = Service()
    mine = to(two, note)
    for step in range(3):
        mine.again(step, {})
    mine.log(3, {})
    mine.close(True, 30.0)
    assert two.calls == [("log", 1, {}), ("log", 2, {}), ("log", 3, {}), ("close", True)]
    assert sender.read(note) == Sent("here", 4, True)
    three = Service()
    three.place = "elsewhere"  # another run, which has nothing
    mine = to(three, note)
    assert sender.read(note).done is False
    mine.again(0, {})
    mine.close(True, 30.0)
    assert three.calls[0] == ("log", 0, {})
    assert sender.read(note).place == "elsewhere"


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "{}", json.dumps({"place": 1, "next": 0, "done": True}), "[" * 99999]
)
def test_of_a_damaged_note_all_is_sent_again(note, text):
    note.write_text(text)
    assert sender.read(note) == Sent()


class Answered(Exception):
    """As MLflow's exceptions."""

    def __init__(self, status):
        self.status = status

    def get_http_status_code(self):
        return self.status


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionError(), True),
        (TimeoutError(), True),
        (PermissionError(), False),
        (ValueError(), False),
        (Answered(400), False),
        (Answered(404), False),
        (Answered(429), True),
        (Answered(500), True),
    ],
)
def test_whether_the_same_may_do_later(error, expected):
    assert sender.passes(error) is expected
