"""What is said about a compiled network: text, the same as data, and tables in a notebook."""

from __future__ import annotations

from typing import Any


class Told:
    """Something that prints as text and has the same as data."""

    def __init__(self, text: str, json: str) -> None:
        self._text = text
        self._json = json

    @property
    def data(self) -> dict[str, Any]:
        """The same as plain values."""
        import json

        data: dict[str, Any] = json.loads(self._json)
        return data

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return self._text

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, Told) and self._json == other._json

    def __hash__(self) -> int:
        return hash(self._json)

    def __reduce__(self) -> tuple[type[Told], tuple[str, str]]:
        return type(self), (self._text, self._json)


class Report(Told):
    """What was compiled. `data` has the target, the transposed convolutions (`layers`), all `steps`, and the sizes of code,
    weights and workspace in bytes."""

    def _repr_html_(self) -> str:
        data = self.data
        sizes = [
            f"{key.removesuffix('_bytes')} {data[key]:,} bytes"
            for key in ("code_bytes", "weight_bytes", "workspace_bytes")
        ]
        caption = ", ".join(
            [data["target"], f"{data['threads']} thread(s)", f"compiled in {data['compile_ms']:.1f} ms", *sizes]
        )
        layers = ["node", "geometry", "form", "reason", "kernel", "schedule", "predicted_us"]
        steps = ["node", "kernel", "schedule", "threads", "roofline_us"]
        interpreted = ["node", "op", "reason", "share_percent"]
        tables = [
            table(caption, layers, data["layers"]),
            table(f"{len(data['steps'])} steps", steps, data["steps"]),
        ]
        if data["interpreted"]:
            tables.append(table("interpreted steps", interpreted, data["interpreted"]))
        return "".join(tables)


class Explanation(Told):
    """Why each transposed convolution is computed as it is. `data` is what `tconvc explain --json` prints."""

    def _repr_html_(self) -> str:
        data = self.data
        rows = []
        for layer in data["layers"]:
            times = [
                f"{form['what']} {form['cost']['predicted_us']:.1f} us"
                for form in layer["considered"]
                if (form.get("cost") or {}).get("predicted_us") is not None
            ]
            rows.append(layer | {"considered": ", ".join(times)})
        columns = ["node", "geometry", "chosen", "reason", "considered", "checkerboard"]
        return table(f"{data['target']}, {data['threads']} thread(s)", columns, rows)


def table(caption: str, columns: list[str], rows: list[dict[str, Any]]) -> str:
    """A table of these columns; empty ones are left out. Of a table without rows, the caption is left."""
    from html import escape

    if not rows:
        return f"<p>{escape(caption)}</p>"

    def cell(value: Any) -> str:
        text = f"{value:.1f}" if isinstance(value, float) else "" if value is None else str(value)
        return f"<td>{escape(text)}</td>"

    shown = [column for column in columns if any(row.get(column) not in (None, "") for row in rows)]
    head = "".join(f"<th>{escape(column.replace('_', ' '))}</th>" for column in shown)
    body = "".join("<tr>" + "".join(cell(row.get(column)) for column in shown) + "</tr>" for row in rows)
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
