"""Reading lists: columns by name, faults with file, line and column."""

from __future__ import annotations

import pytest

from traces.errors import TraceError
from traces.openb import Node, Task, TaskClass, Times, read_nodes, read_tasks

NODES = "sn,cpu_milli,memory_mib,gpu,model\n"
TASKS = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\n"


def test_nodes_are_read_in_the_order_of_the_list() -> None:
    """Each row becomes a node; one without GPUs has no model."""
    nodes = read_nodes(NODES + "b,8000,1024,2,T4\na,4000,512,0,\n", "nodes.csv")
    assert nodes == (Node("b", 8000, 1024, 2, "T4"), Node("a", 4000, 512, 0, ""))


def test_columns_are_found_by_name() -> None:
    """The order of columns does not matter, nor do columns that nobody asks for."""
    text = "qos,num_gpu,gpu_milli,name,memory_mib,cpu_milli\nBE,1,470,p,2048,3152\n"
    assert read_tasks(text, "x") == (Task("p", TaskClass(3152, 2048, 1, 470), line=2),)


def test_a_byte_order_mark_and_empty_lines_are_passed_over() -> None:
    """Lists that went through an office program are read."""
    assert len(read_nodes("\ufeff" + NODES + "\na,1,1,1,T4\n\n", "x")) == 1


@pytest.mark.parametrize(
    ("spec", "models"),
    [("", ()), ("T4", ("T4",)), ("V100M32|V100M16|V100M32", ("V100M16", "V100M32"))],
)
def test_a_model_list_is_a_set(spec: str, models: tuple[str, ...]) -> None:
    """Models are separated by bars; order and repetition say nothing."""
    assert read_tasks(TASKS + f"p,1,1,1,1000,{spec}\n", "x")[0].kind.models == models


def test_tasks_without_gpus_have_neither_share_nor_models() -> None:
    """What a CPU-only row says of GPUs does not count."""
    assert read_tasks(TASKS + "p,1,1,0,0,T4\n", "x")[0].kind == TaskClass(1, 1, 0, 0)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "n.csv: is empty"),
        (NODES, "n.csv: holds no node"),
        ("sn,cpu_milli,memory_mib\n", "n.csv:1:gpu: the column is missing"),
        ("sn,gpu,gpu,cpu_milli,memory_mib\n", "n.csv:1:gpu: the column occurs twice"),
        (NODES + "a,1,1,1\n", "n.csv:2: 4 cells where the header has 5"),
        (NODES + "a,1,1,1,T4\na,1,1,1,T4\n", "n.csv:3:sn: 'a' occurs twice"),
        (NODES + ",1,1,1,T4\n", "n.csv:2:sn: is empty"),
        (NODES + "a,-1,1,1,T4\n", "n.csv:2:cpu_milli: '-1' is not a whole number of 0 to"),
        (NODES + "a,1,1.5,1,T4\n", "n.csv:2:memory_mib: '1.5' is not a whole number of 0 to"),
        (NODES + "a,1,1,65,T4\n", "n.csv:2:gpu: '65' is not a whole number of 0 to 64"),
        (NODES + f"a,{'9' * 5000},1,1,T4\n", "n.csv:2:cpu_milli: '9999"),
        (NODES + 'a,1,1,1,"T4\n', "n.csv:2: unexpected end of data"),
    ],
)
def test_a_bad_node_list_is_named(text: str, told: str) -> None:
    """The error names file, line and column, and what is wrong there."""
    with pytest.raises(TraceError) as caught:
        read_nodes(text, "n.csv")
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("p,1,1,1,0,", "p.csv:2:gpu_milli: 0 where num_gpu is 1"),
        ("p,1,1,2,500,", "p.csv:2:gpu_milli: a share (500) of 2 GPUs: only of one"),
        ("p,1,1,1,1001,", "p.csv:2:gpu_milli: '1001' is not a whole number of 0 to 1000"),
        ("p,1,1,x,1000,", "p.csv:2:num_gpu: 'x' is not a whole number of 0 to 64"),
    ],
)
def test_a_bad_task_is_named(row: str, told: str) -> None:
    """Shares must be what the format allows."""
    with pytest.raises(TraceError, match=r"^p\.csv:2:") as caught:
        read_tasks(TASKS + row + "\n", "p.csv")
    assert str(caught.value) == told


TIMES = TASKS.replace("gpu_spec", "creation_time,deletion_time,scheduled_time")


@pytest.mark.parametrize(
    ("cells", "times", "life"),
    [
        ("0,8000,500", Times(0, 8000, 500), 7500),
        ("100,8000,", Times(100, 8000), 7900),
        (",,", None, None),
        ("5,,5", None, None),
    ],
)
def test_times_are_read_where_they_are(cells: str, times: Times | None, life: int | None) -> None:
    """A task lives from when it began to run; one that never did, from its creation."""
    (task,) = read_tasks(TIMES + f"p,1,1,1,1000,{cells}\n", "x")
    assert task.times == times
    assert life is None or task.times is None or task.times.life == life


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        ("0,x,0", "p.csv:2:deletion_time: 'x' is not a time in seconds"),
        ("0,inf,0", "p.csv:2:deletion_time: 'inf' is not a time in seconds"),
        ("-1,5,0", "p.csv:2:creation_time: '-1' is not a time in seconds"),
        ("9,5,9", "p.csv:2:deletion_time: earlier than creation_time"),
        ("1,5,9", "p.csv:2:scheduled_time: not between creation_time and deletion_time"),
    ],
)
def test_bad_times_are_named(cells: str, told: str) -> None:
    """File, line and column, and what is wrong there."""
    with pytest.raises(TraceError) as caught:
        read_tasks(TIMES + f"p,1,1,1,1000,{cells}\n", "p.csv")
    assert str(caught.value) == told
