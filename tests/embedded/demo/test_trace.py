"""Reading a pod list of the openb format."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedded.errors import WorkloadError
from embedded.trace import Lifetimes, read_trace
from topology.wire import GPU_MODEL_KEY

HEADER = (
    "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,"
    "creation_time,deletion_time,scheduled_time\n"
)
SHORT_HEADER = "name,cpu_milli,memory_mib,num_gpu,gpu_milli\n"
ROW = "p-1,4000,8192,2,1000,,LS,Running,0,8000,0\n"
MODELS = ["NVIDIA A100-SXM4-40GB", "Tesla V100-SXM2-16GB"]


def write(folder: Path, text: str | bytes) -> Path:
    """Write a list."""
    path = folder / "pods.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_whole_and_cpu_pods_are_taken_in_order_and_shares_counted(tmp_path: Path) -> None:
    """Order and requests are the file's; a pod with a share of a GPU is left out."""
    text = SHORT_HEADER + "a,1000,10,1,1000\nb,1000,10,1,460\nc,2000,20,0,0\nd,1,1,8,1000\n"
    trace = read_trace(write(tmp_path, text), MODELS)
    assert [(pod.name, pod.gpus) for pod in trace.pods] == [("a", 1), ("c", 0), ("d", 8)]
    assert (trace.pods[1].containers[0].cpu_milli, trace.pods[1].containers[0].memory_mib) == (
        2000,
        20,
    )
    assert (trace.shared, trace.unknown_model) == (1, 0)


def test_lifetimes_come_from_the_trace_compressed(tmp_path: Path) -> None:
    """Deletion minus creation is mapped onto the range; a list without times draws them by seed."""
    trace = read_trace(write(tmp_path, HEADER + ROW), MODELS, lifetimes=Lifetimes(1, 8))
    assert trace.pods[0].run_seconds == pytest.approx(4.5, abs=0.05)
    path = write(tmp_path, SHORT_HEADER + "a,1,1,1,1000\nb,1,1,1,1000\n")
    drawn = [[pod.run_seconds for pod in read_trace(path, MODELS, seed=s).pods] for s in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(seconds is not None and 1 <= seconds <= 8 for seconds in drawn[0])


def test_a_model_list_is_kept_where_a_machine_has_one(tmp_path: Path) -> None:
    """A pod asks for the first model that is there; with none of them there it is left out."""
    rows = "".join(
        f"p{number},1,1,1,1000,{spec},,,,,\n"
        for number, spec in enumerate(["T4|V100M16", "T4", "A10", ""])
    )
    trace = read_trace(write(tmp_path, HEADER + rows), MODELS)
    assert [pod.annotations.get(GPU_MODEL_KEY) for pod in trace.pods] == [MODELS[1], None]
    assert trace.unknown_model == 2


def test_marks_and_line_ends_of_other_systems_are_read(tmp_path: Path) -> None:
    """A byte-order mark, CRLF and blank lines do no harm."""
    text = "\ufeff" + (HEADER + "\n" + ROW + "\n").replace("\n", "\r\n")
    assert len(read_trace(write(tmp_path, text), MODELS).pods) == 1


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "is empty"),
        (HEADER, "holds no task"),
        (HEADER.replace("num_gpu,", "") + ROW, ":1:num_gpu: the column is missing"),
        (HEADER.replace("name", "title") + ROW, ":1:name: the column is missing"),
        (HEADER.replace("gpu_spec", "num_gpu") + ROW, ":1:num_gpu: the column occurs twice"),
        (HEADER + ROW.replace("4000", "many"), ":2:cpu_milli: 'many'"),
        (HEADER + ROW.replace("4000", "-1"), ":2:cpu_milli: '-1'"),
        (HEADER + ROW.replace("4000", "1.5"), ":2:cpu_milli: '1.5'"),
        (HEADER + ROW.replace("4000", ""), ":2:cpu_milli: ''"),
        (HEADER + ROW.replace("4000", "9" * 5000), ":2:cpu_milli"),
        (HEADER + ROW.replace("4000", "٣"), ":2:cpu_milli"),
        (HEADER + ROW.replace("1000", "1001"), ":2:gpu_milli: '1001'"),
        (HEADER + ROW.replace("1000", "0"), ":2:gpu_milli: 0 where num_gpu is 2"),
        (HEADER + ROW.replace("8000", "x"), ":2:deletion_time: 'x'"),
        (HEADER + ROW.replace("8000", "nan"), ":2:deletion_time: 'nan'"),
        (HEADER + ROW.replace(",0,8000,", ",9000,8000,"), ":2:deletion_time: earlier"),
        (HEADER + ROW + ROW, ":3:name: 'p-1' occurs twice"),
        (HEADER + ROW.replace("p-1", "P_1"), ":2:name: 'P_1'"),
        (HEADER + "p-1,4000\n", ":2: 2 cells where the header has 11"),
        (HEADER + ROW.rstrip() + ",x\n", ":2: 12 cells"),
        (HEADER + '"p-1,4000\n', ":2"),
        (b"\xff\xfe\x00", "not UTF-8"),
    ],
)
def test_broken_lists_are_refused_with_the_place(
    tmp_path: Path, text: str | bytes, where: str
) -> None:
    """One clear error names the file, the line and the column."""
    path = write(tmp_path, text)
    with pytest.raises(WorkloadError) as caught:
        read_trace(path, MODELS)
    assert str(path) in str(caught.value)
    assert where in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    """What cannot be opened is named."""
    for path in (tmp_path / "nowhere.csv", tmp_path):
        with pytest.raises(WorkloadError, match=str(path)):
            read_trace(path, MODELS)
