"""Every way in which the hub, the connection or the disk may fail: one line, a status, nothing lost."""

import errno
import json
import os
from pathlib import Path

import pytest
from hub_server import Fault, Repository

from gptoss.cli.hub import pull as pull_module

BAD_TOKEN = "Invalid credentials in Authorization header"  # so the hub says it
SHARD = "model-00002-of-00003.safetensors"


def last_line(result) -> str:
    """The error: the last line, and the only one that the program begins with its name."""
    lines = result.stderr.splitlines()
    assert [line for line in lines if line.startswith("gptoss: ")] == lines[-1:]
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    return lines[-1]


def test_a_break_is_resumed_in_the_same_run(gptoss, hub, checkpoint) -> None:
    hub.faults = [Fault(SHARD, cut_after=300_000, times=2)]
    result = gptoss("pull", "owner/made")
    assert result.status == 0
    assert "broke off" in result.stderr
    assert hub.sent[SHARD] - len(checkpoint[SHARD]) <= 2 * 65536
    ranges = [range_ for _, path, range_ in hub.requests if "/cdn/" in path and SHARD in path]
    assert ranges[0] is None
    assert [int(each.removeprefix("bytes=").removesuffix("-")) > 0 for each in ranges[1:]] == [True, True]


def test_a_connection_that_always_breaks_fails_and_is_resumed_by_the_next_pull(gptoss, hub, checkpoint) -> None:
    hub.faults = [Fault(SHARD, cut_after=400_000, times=1), Fault(SHARD, cut_after=0)]
    result = gptoss("pull", "owner/made")
    assert result.status == 1
    assert "broke off" in last_line(result)
    sent = hub.sent[SHARD]
    hub.faults = []
    assert gptoss("pull", "owner/made").status == 0
    assert hub.sent[SHARD] - sent <= len(checkpoint[SHARD]) - sent + 65536
    assert all(hub.sent[name] == len(checkpoint[name]) for name in hub.sent if name != SHARD)


def test_a_stall_is_a_break(gptoss, hub) -> None:
    hub.faults = [Fault(SHARD, stall_after=200_000, times=1)]
    result = gptoss("pull", "owner/made")
    assert result.status == 0
    assert "did not answer for 1 s" in result.stderr


def test_an_answer_that_ends_early_is_a_break(gptoss, hub) -> None:
    hub.faults = [Fault(SHARD, end_early=1000, times=1)]
    assert gptoss("pull", "owner/made").status == 0


def test_a_server_without_ranges_begins_the_file_anew(gptoss, hub, checkpoint) -> None:
    hub.ranges = False
    hub.faults = [Fault(SHARD, cut_after=300_000, times=1)]
    result = gptoss("pull", "owner/made")
    assert result.status == 0
    assert "cannot resume" in result.stderr
    assert hub.sent[SHARD] == len(checkpoint[SHARD]) + 300_000


def test_a_server_that_begins_again_and_again_makes_no_progress(gptoss, hub) -> None:
    hub.ranges = False
    hub.faults = [Fault(SHARD, cut_after=300_000)]
    result = gptoss("pull", "owner/made")
    assert result.status == 1
    assert "broke off" in last_line(result)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_server_that_sends_a_little_more_each_time_makes_no_progress(gptoss, hub, monkeypatch, ranges) -> None:
    from gptoss.cli.hub import client

    drip = Fault(SHARD, cut_after=1)
    waits = []

    def wait(wait_s) -> None:
        waits.append(wait_s)
        drip.cut_after += not ranges
        assert len(waits) < 50

    monkeypatch.setattr(client.time, "sleep", wait)
    hub.ranges, hub.faults = ranges, [drip]
    result = gptoss("pull", "owner/made")
    assert result.status == 1
    assert "broke off" in last_line(result)


@pytest.mark.parametrize("name", [SHARD, "README.md"])
def test_a_wrong_hash_is_thrown_away(gptoss, hub, cache, name) -> None:
    hub.faults = [Fault(name, corrupt=True)]
    result = gptoss("pull", "owner/made")
    assert result.status == 1
    assert last_line(result).startswith(f"gptoss: {name} arrived with the hash ")
    assert not list((cache / "blobs").glob("*.incomplete"))
    assert gptoss("ask", "-m", "owner/made", "Hi").status == 3
    hub.faults = []
    assert gptoss("pull", "owner/made").status == 0


def test_a_damaged_partial_file_is_fetched_whole(gptoss, hub, cache) -> None:
    hub.faults = [Fault(SHARD, cut_after=400_000, times=1), Fault(SHARD, cut_after=0)]
    gptoss("pull", "owner/made")
    (partial,) = (cache / "blobs").glob("*.incomplete")
    with partial.open("r+b") as file:
        file.write(b"\0" * 100)
    hub.faults = []
    result = gptoss("pull", "owner/made")
    assert result.status == 0
    assert "was damaged; fetching it whole" in result.stderr


def test_a_damaged_finished_file_of_an_interrupted_pull_is_found(gptoss, hub, cache, checkpoint) -> None:
    hub.faults = [Fault(SHARD, status=500)]
    assert gptoss("pull", "owner/made").status == 1
    first = "model-00001-of-00003.safetensors"
    blob = cache / "blobs" / hub.repositories["owner/made"].key(first)
    blob.write_bytes(b"\0" * len(checkpoint[first]))
    hub.faults = []
    assert gptoss("pull", "owner/made").status == 0
    assert blob.read_bytes() == checkpoint[first]


@pytest.mark.parametrize(
    ("fault", "status", "says"),
    [
        ({"status": 401, "code": "RepoNotFound"}, 3, "has no model owner/made, or does not show it to everyone"),
        (
            {"status": 401, "headers": {"X-Error-Message": BAD_TOKEN}},
            3,
            "does not accept the token",
        ),
        ({"status": 403, "code": "GatedRepo"}, 3, "accept them at http://127.0.0.1"),
        ({"status": 403}, 3, "ask for access there"),
        ({"status": 404, "code": "RepoNotFound"}, 3, "has no model owner/made"),
        ({"status": 404, "code": "RevisionNotFound"}, 3, "has no revision 'main'"),
        ({"status": 429}, 1, "is asked too often (429)"),
        ({"status": 429, "headers": {"Retry-After": "3600"}}, 1, "is asked too often (429)"),
        ({"status": 500}, 1, "failed (500, the list of files)"),
        ({"status": 503}, 1, "failed (503, the list of files)"),
        ({"status": 418}, 1, "answered 418 (the list of files)"),
        ({"status": 200}, 1, "a list of files that is none"),
    ],
)
def test_statuses(gptoss, hub, home, fault, status, says) -> None:
    hub.faults = [Fault("/api/models/owner", **fault)]
    result = gptoss("pull", "owner/made")
    assert result.status == status
    assert says in last_line(result)
    assert not list(home.glob("hf/hub/models--*"))


@pytest.mark.parametrize("where", ["/api/models/owner", f"/resolve/main/{SHARD}", f"/cdn/owner/made/{SHARD}"])
@pytest.mark.parametrize("address", ["file:///etc/passwd", "gopher://host/", "http://[::1"])
def test_the_hub_is_blamed_for_where_it_redirects_to(gptoss, hub, home, where, address) -> None:
    where = where.replace("main", hub.repositories["owner/made"].commit)
    hub.faults = [Fault(where, status=302, headers={"Location": address})]
    result = gptoss("pull", "owner/made")
    assert result.status == 1
    assert f"{hub.url} redirects to an address that is none of the web" in last_line(result)
    assert "root:" not in "".join(path.read_text(errors="replace") for path in home.rglob("*") if path.is_file())


def test_redirects_in_a_circle(gptoss, hub) -> None:
    hub.faults = [Fault("/api/models/owner", status=302, headers={"Location": "/api/models/owner/made"})]
    result = gptoss("pull", "owner/made")
    assert result.status == 1
    assert f"{hub.url} redirects in a circle" in last_line(result)


@pytest.mark.parametrize(("status", "exit_status"), [(401, 3), (403, 3), (404, 3), (416, 1), (429, 1), (502, 1)])
def test_statuses_of_a_file(gptoss, hub, status, exit_status) -> None:
    hub.faults = [Fault(f"/cdn/owner/made/{SHARD}", status=status)]
    result = gptoss("pull", "owner/made")
    assert result.status == exit_status
    last_line(result)


def test_a_failure_that_passes_is_no_failure(gptoss, hub) -> None:
    hub.faults = [
        Fault("/api/models/owner", status=503, times=1),
        Fault("/api/models/owner", status=429, times=1, headers={"Retry-After": "0"}),
        Fault(SHARD, status=500, times=1),
    ]
    result = gptoss("pull", "owner/made")
    assert result.status == 0
    assert "trying again in 0 s" in result.stderr


def test_no_hub_at_all(gptoss, home, monkeypatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    result = gptoss("pull", "owner/made")
    assert result.status == 1
    assert "cannot be reached" in last_line(result)


def test_no_address(gptoss, home, monkeypatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "hub")
    result = gptoss("pull", "owner/made")
    assert result.status == 1
    assert "is no address of a hub" in last_line(result)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (json.dumps({"model_type": "llama"}).encode(), "only gpt-oss models"),
        (b"{}", "it is no gpt-oss config"),
        (b"not json", "is not JSON"),
        (b'{"model_type": "gpt_oss"}', "config.json"),
    ],
)
def test_another_architecture_is_refused_before_its_weights(gptoss, hub, home, config, says) -> None:
    hub.repositories["owner/made"].files["config.json"] = config
    result = gptoss("pull", "owner/made")
    assert result.status == 3
    assert says in last_line(result)
    assert {name for name, sent in hub.sent.items() if sent} == {"config.json"}
    assert not list(home.glob("hf/hub/models--*"))


@pytest.mark.parametrize(
    ("changes", "status", "says"),
    [
        ({"config.json": None}, 3, "has no config.json at its top level"),
        ({"model.safetensors.index.json": b"{}"}, 3, "names no .safetensors files"),
        ({"model.safetensors.index.json": b'{"weight_map": {"a": "../b.safetensors"}}'}, 3, "names no .safetensors"),
        ({"model.safetensors.index.json": b'{"weight_map": {"a": "b.safetensors"}}'}, 3, "an index but no 'b.safet"),
        ({"model.safetensors.index.json": b"["}, 1, "is not JSON"),
        ({f"model-0000{n}-of-00003.safetensors": None for n in (1, 2, 3)}, 3, "an index but no"),
    ],
)
def test_what_is_no_checkpoint(gptoss, hub, changes, status, says) -> None:
    files = hub.repositories["owner/made"].files
    for name, content in changes.items():
        if content is None:
            del files[name]
        else:
            files[name] = content
    result = gptoss("pull", "owner/made")
    assert result.status == status
    assert says in last_line(result)
    assert not any(sent for name, sent in hub.sent.items() if name.endswith(".safetensors"))


@pytest.mark.parametrize(
    ("lies", "says"),
    [
        ({SHARD: {"size": -1}}, "as the size"),
        ({SHARD: {"size": 1 << 60}}, "as the size"),
        ({"README.md": {"size": 1 << 40}}, "as the size"),
        ({SHARD: {"key": "../../../etc/passwd"}}, "as the hash"),
        ({"README.md": {"key": "0" * 39}}, "as the hash"),
        ({"": {"sha": "../../x"}}, "as the commit"),
        ({SHARD: {"size": 1000}}, "sends more of"),
    ],
)
def test_a_list_that_lies(gptoss, hub, home, lies, says) -> None:
    hub.repositories["owner/made"].lies = lies
    result = gptoss("pull", "owner/made")
    assert result.status == 1
    assert says in last_line(result)


def test_a_list_with_a_file_twice(gptoss, hub) -> None:
    hub.repositories["owner/made"].twice = True
    result = gptoss("pull", "owner/made")
    assert result.status == 1
    assert "lists a file of owner/made twice" in last_line(result)


def test_names_that_lead_elsewhere_are_not_wanted(gptoss, hub, home) -> None:
    hub.repositories["owner/made"].files |= {
        "../evil.safetensors": b"x",
        "/etc/evil.safetensors": b"x",
        ".hidden.safetensors": b"x",
        "a\nb.safetensors": b"x",
        "run.py": b"x",
        "pytorch_model.bin": b"x",
    }
    folder = home / "there"
    assert gptoss("pull", "owner/made", "--to", str(folder)).status == 0
    assert len(list(folder.iterdir())) == 8


def test_a_disk_that_is_too_small_is_told_before(gptoss, hub, monkeypatch) -> None:
    usage = type("Usage", (), {"free": 1_000_000})
    monkeypatch.setattr(pull_module.shutil, "disk_usage", lambda _path: usage)
    result = gptoss("pull", "owner/made")
    assert result.status == 1
    assert "owner/made needs 3.16 MB more, but " in last_line(result)
    assert "has 1 MB free" in last_line(result)
    assert not any(sent for name, sent in hub.sent.items() if name.endswith(".safetensors"))


def test_a_disk_that_fills_up(gptoss, hub, checkpoint, monkeypatch) -> None:
    """The first half of a shard fits; the pull that follows fetches only the rest."""
    real_open, room = Path.open, [len(checkpoint[SHARD]) // 2]

    class Full:
        def __init__(self, file) -> None:
            self._file = file

        def __getattr__(self, name):
            return getattr(self._file, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._file.close()

        def write(self, data):
            if len(data) > room[0]:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            room[0] -= len(data)
            return self._file.write(data)

    key = hub.repositories["owner/made"].key(SHARD)

    def limited_open(path, mode="r", *arguments, **keywords):
        file = real_open(path, mode, *arguments, **keywords)
        return Full(file) if key in path.name and "a" in mode else file

    with monkeypatch.context() as limited:
        limited.setattr(Path, "open", limited_open)
        result = gptoss("pull", "owner/made")
    assert result.status == 1
    assert "has no room for more (No space left on device)" in last_line(result)
    sent = hub.sent[SHARD]
    assert gptoss("pull", "owner/made").status == 0
    kept = len(checkpoint[SHARD]) - (hub.sent[SHARD] - sent)
    assert kept > 0.4 * len(checkpoint[SHARD])


def test_a_folder_that_cannot_be_written(gptoss, home) -> None:
    (home / "file").write_text("x")
    for folder in (home / "file", home / "file" / "below"):
        result = gptoss("pull", "owner/made", "--to", str(folder))
        assert result.status == 1
        last_line(result)


def test_a_file_system_without_locks(gptoss, hub, monkeypatch, caplog) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    monkeypatch.setattr("gptoss.cli.base.locking._reported", False)
    assert gptoss("pull", "owner/made").status == 0
    assert caplog.text.count("the file system has no locks") == 1


def test_a_file_of_the_user_is_not_written_over(gptoss, hub, home) -> None:
    folder = home / "mine"
    folder.mkdir()
    (folder / "README.md").write_text("my own words")
    result = gptoss("pull", "owner/made", "--to", str(folder))
    assert result.status == 1
    assert "is there already and is another file" in last_line(result)
    assert (folder / "README.md").read_text() == "my own words"


def test_a_folder_of_another_model_is_refused(gptoss, hub, home) -> None:
    hub.repositories["owner/other"] = Repository(dict(hub.repositories["owner/made"].files))
    folder = home / "there"
    assert gptoss("pull", "owner/made", "--to", str(folder)).status == 0
    result = gptoss("pull", "owner/other", "--to", str(folder))
    assert result.status == 1
    assert "holds 'owner/made'" in last_line(result)


def test_the_waits_between_attempts_end(monkeypatch) -> None:
    from gptoss.cli.hub import client

    waited = []
    monkeypatch.setattr(client.time, "sleep", waited.append)
    with pytest.raises(client.TransientError):
        client.retrying(lambda: (_ for _ in ()).throw(client.TransientError("no")), lambda text: None)
    assert waited == list(client.RETRY_WAITS_S)
