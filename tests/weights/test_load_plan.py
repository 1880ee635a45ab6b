"""A plan as a table for a person."""

from video_mvit.weights.load_plan import Plan, Row, table_rows


def test_blocks_that_change_alike_are_one_line() -> None:
    rows = [Row(name="norm.weight", action="loaded", source=(8,), target=(8,))]
    rows += [
        Row(name=f"blocks.{i}.norm1.{p}", action="loaded", source=(8,), target=(8,))
        for i in (0, 1, 2, 4)
        for p in ("weight", "bias")
    ]
    rows += [
        Row(
            name=f"blocks.{i}.attn.rel_pos_t",
            action="new",
            source=None,
            target=(9, 4),
            note="zeros",
        )
        for i in (0, 1, 2, 4)
    ]
    rows += [
        Row(name="blocks.3.attn.rel_pos_h", action="resized", source=(7, 4), target=(5, 4)),
        Row(name="queue", action="unused", source=(2,), target=None, note="ignored"),
    ]
    table = table_rows(Plan(rows=tuple(rows), state={}))
    assert [(row.action, row.num_tensors, row.name, row.source, row.target) for row in table] == [
        ("loaded", 8, "blocks.{0-2,4}", "", ""),
        ("loaded", 1, "norm", "", ""),
        ("resized", 1, "blocks.3.attn.rel_pos_h", "7x4", "5x4"),
        ("new", 4, "blocks.{0-2,4}.attn.rel_pos_t", "", "9x4"),
        ("unused", 1, "queue", "2", ""),
    ]
