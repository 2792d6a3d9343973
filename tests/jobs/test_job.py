from __future__ import annotations

import json

import pytest

from llm_blender.errors import InputError, WorkError
from llm_blender.jobs import Entry, Job, Outputs
from llm_blender.types import Candidate

SETTINGS = {"seed": 0, "llms": {"a": {"temperature": 0.5}}}


def done(folder, settings=SETTINGS, **options):
    with Job(folder, "run", settings, **options) as job:
        return job.journal("rows").status("a")


@pytest.fixture
def begun(tmp_path):
    folder = tmp_path / "out.job"
    with Job(folder, "run", SETTINGS) as job:
        job.journal("rows").add(Entry("a", "done", {"x": 1}, cost=2.0))
        assert (job.cost, job.unpriced) == (2.0, 0)
    return folder


def test_an_answer_is_paid_for_when_it_arrives_and_its_row_may_never_be_done(tmp_path):
    folder = tmp_path / "out.job"
    with Job(folder, "run", SETTINGS) as job:
        for name, cost in (("a", 0.5), ("b", 0.25), ("a", 1.0), ("b", None)):
            job.paid(Candidate("text", name, cost=cost))
        job.journal("rows").add(Entry("row", "done", {"x": 1}, cost=0.75))
    with Job(folder, "run", SETTINGS) as job:
        job.journal("rows")
        assert (job.cost, job.unpriced, job.cost_by_llm()) == (1.75, 1, {"a": 1.5, "b": None})
    assert not done(folder, restart=True)


def test_a_job_without_a_record_of_answers_costs_what_its_rows_do(begun):
    with Job(begun, "run", SETTINGS) as job:
        job.journal("rows")
        job.paid(Candidate("text", "a", cost=0.5))
        assert job.cost == 2.0


def test_the_same_settings_go_on(begun):
    assert done(begun, json.loads(json.dumps(SETTINGS))) == "done"
    manifest = json.loads((begun / "manifest.json").read_text())
    assert manifest["settings"] == SETTINGS
    with Job(begun, "run", SETTINGS) as job:
        assert manifest["settings_sha256"] == job.digest


def test_other_settings_are_refused_and_named(begun):
    with pytest.raises(InputError, match=r"other settings \(seed: 0 then, 1 now\): use those, .*--restart"):
        done(begun, {**SETTINGS, "seed": 1})
    with pytest.raises(InputError, match=r"\(llms.a.temperature: 0.5 then, null now; llms.a.model: null then"):
        done(begun, {**SETTINGS, "llms": {"a": {"model": "m"}}})
    assert done(begun) == "done"


def rows_settings(n, digest, **more):
    return {**SETTINGS, "rows": n, "rows_sha256": digest, **more}


def before(found):
    return rows_settings(found["rows"], f"of {found['rows']}")


def test_rows_may_be_appended(tmp_path):
    folder = tmp_path / "out.job"
    with Job(folder, "run", rows_settings(2, "of 2")) as job:
        job.journal("rows").add(Entry("a", "done", {"x": 1}))
    begun_at = json.loads((folder / "manifest.json").read_text())["begun_at"]
    with pytest.raises(InputError, match="rows: 2 then, 3 now"):
        done(folder, rows_settings(3, "of 3"))
    assert done(folder, rows_settings(3, "of 3"), before=before) == "done"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["settings"], manifest["begun_at"]) == (rows_settings(3, "of 3"), begun_at)
    assert done(folder, rows_settings(3, "of 3")) == "done"
    with pytest.raises(InputError, match=r"\(seed: 0 then, 1 now\)"):
        done(folder, rows_settings(4, "of 4", seed=1), before=lambda found: {**before(found), "seed": 1})


def test_rows_that_have_changed_are_refused(tmp_path):
    folder = tmp_path / "out.job"
    done(folder, rows_settings(2, "others"))
    changed = r"other settings \(rows: some of the first 2 have changed\)"
    with pytest.raises(InputError, match=changed):
        done(folder, rows_settings(3, "of 3"), before=before)
    with pytest.raises(InputError, match=changed):
        done(folder, rows_settings(2, "of 2"))
    assert done(folder, rows_settings(2, "others")) is None


def test_another_kind_of_work_is_refused(begun):
    with pytest.raises(InputError, match="it was a `run`"), Job(begun, "data build", SETTINGS):
        pass


def test_restart_forgets(begun):
    assert done(begun, {**SETTINGS, "seed": 1}, restart=True) is None
    assert json.loads((begun / "manifest.json").read_text())["settings"]["seed"] == 1


def test_one_process_at_a_time(begun):
    with Job(begun, "run", SETTINGS), pytest.raises(InputError, match="Another process works on"):
        done(begun)
    assert done(begun) == "done"


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty and holds no job"):
        done(tmp_path, restart=True)
    with pytest.raises(InputError, match="is a file"):
        done(tmp_path / "mine.txt")
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"version": 1, "kind": "run"}'])
def test_a_damaged_manifest_is_told(begun, text):
    (begun / "manifest.json").write_text(text)
    with pytest.raises(InputError, match="is not the manifest of a job"):
        done(begun)
    assert done(begun, restart=True) is None


def test_a_manifest_of_another_version(begun):
    manifest = json.loads((begun / "manifest.json").read_text())
    (begun / "manifest.json").write_text(json.dumps({**manifest, "version": 2}))
    with pytest.raises(InputError, match="another version"):
        done(begun)


def test_what_a_kill_left_before_the_manifest_is_no_obstacle(tmp_path):
    (tmp_path / "lock").touch()
    (tmp_path / "manifest.part").write_text('{"ver')
    assert done(tmp_path) is None


def test_an_output_is_known_while_it_is_as_it_was_written(tmp_path):
    out, folder = tmp_path / "out.jsonl", tmp_path / "out.jsonl.job"

    def find(made_of="rows", **options):
        with Job(folder, "run", {}, **options) as job:
            return Outputs(job).find(out, made_of)

    assert find() is None
    out.write_text("1\n")
    with Job(folder, "run", {}) as job:
        Outputs(job).add(out, "rows", {"n": 1})
        Outputs(job).add(tmp_path / "missing", "rows", {})
    assert find() == {"n": 1}
    assert find("other rows") is None
    with (folder / "outputs.journal.jsonl").open("a") as journal:
        journal.write('{"key": "out.jsonl", "sta')  # cut off by a kill
    assert find() == {"n": 1}
    out.write_text("2\n")
    assert find() is None
    out.unlink()
    assert find() is None
    out.write_text("1\n")
    assert find(restart=True) is None


def test_payments_are_read_as_they_were_written(tmp_path):
    llms = ["plain", 'with "quotes"', "a\\b", "zwölf", "two\nlines", ""]
    with Job(tmp_path / "job", "run", {}) as job:
        for n, llm in enumerate(llms):
            job.paid(Candidate("", llm, cost=0.5 * n))
        job.paid(Candidate("", "unknown", cost=None))
        costs = job.cost, job.unpriced, job.cost_by_llm()
    path = tmp_path / "job/paid.journal.jsonl"
    with path.open("a") as file:
        file.write('{"key":"7","status":"done","value":{"llm":"plain"},"reason":"","cost":2}\n')  # by other hands
    with Job(tmp_path / "job", "run", {}) as job:
        assert (job.cost - 2, job.unpriced, job.cost_by_llm()) == (costs[0], costs[1], {**costs[2], "plain": 2})
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0].replace("0.0", "0,0"), *lines[1:]]))
    with Job(tmp_path / "job", "run", {}) as job, pytest.raises(WorkError, match="line 1: this is not an entry"):
        _ = job.cost
