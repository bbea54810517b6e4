"""What an ONNX file says of itself beside its graph: a few fields of the outermost message, read without the rest."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

# Numbers of fields: of ModelProto, GraphProto, StringStringEntryProto, and of what leads from ValueInfoProto to a dimension.
_PRODUCER_NAME, _DOMAIN, _MODEL_VERSION, _DOC_STRING, _GRAPH, _METADATA = 2, 4, 5, 6, 7, 14
_GRAPH_NAME, _GRAPH_DOC_STRING, _INPUT, _OUTPUT = 2, 10, 11, 12
_KEY, _VALUE = 1, 2
_NAME, _TYPE, _TENSOR, _SHAPE, _DIM, _DIM_VALUE, _DIM_PARAM = 1, 2, 1, 2, 1, 1, 2
# Nothing that is read here is longer.
_LONGEST = 1 << 20

Extents = list[int | str | None]


class ModelMetadata(NamedTuple):
    """What a model's file says of itself."""

    producer_name: str
    domain: str
    version: int
    description: str
    graph_name: str
    graph_description: str
    custom_metadata_map: dict[str, str]


class About(NamedTuple):
    """What a file says of its model, and of the extents of inputs and outputs, by name: numbers, names, or None."""

    metadata: ModelMetadata
    extents: dict[str, Extents]


def about(source: Any) -> About:
    """That of a file, or of its bytes, which are known to be those of a model."""
    if hasattr(source, "SerializeToString"):
        source = source.SerializeToString()
    if isinstance(source, bytes | bytearray | memoryview):
        return _read(io.BytesIO(source))
    with open(os.fspath(source), "rb") as file:
        return _read(file)


def _read(file: BinaryIO) -> About:
    end = file.seek(0, io.SEEK_END)
    file.seek(0)
    model: dict[int, Any] = {}
    graph: dict[int, Any] = {}
    entries: dict[str, str] = {}
    extents: dict[str, Extents] = {}
    for number, value in _fields(file, end):
        if number == _GRAPH and isinstance(value, int):
            for inner, told in _fields(file, file.tell() + value, _INPUT, _OUTPUT, _GRAPH_NAME, _GRAPH_DOC_STRING):
                if inner in (_INPUT, _OUTPUT) and isinstance(told, bytes):
                    extents.update(_port(told))
                else:
                    graph[inner] = told
        elif number == _METADATA and isinstance(value, bytes):
            entry = _message(value)
            entries[_text(entry.get(_KEY))] = _text(entry.get(_VALUE))
        else:
            model[number] = value
    version = model.get(_MODEL_VERSION, 0)
    metadata = ModelMetadata(
        producer_name=_text(model.get(_PRODUCER_NAME)),
        domain=_text(model.get(_DOMAIN)),
        version=version if isinstance(version, int) else 0,
        description=_text(model.get(_DOC_STRING)),
        graph_name=_text(graph.get(_GRAPH_NAME)),
        graph_description=_text(graph.get(_GRAPH_DOC_STRING)),
        custom_metadata_map=entries,
    )
    return About(metadata, extents)


def _port(value_info: bytes) -> dict[str, Extents]:
    """The extents of an input or output that is a tensor of known rank."""
    info = _message(value_info)
    shape: Any = value_info
    for number in (_TYPE, _TENSOR, _SHAPE):
        shape = _message(shape).get(number)
        if not isinstance(shape, bytes):
            return {}
    extents: Extents = []
    for number, dim in _fields(io.BytesIO(shape), len(shape)):
        if number == _DIM and isinstance(dim, bytes):
            told = _message(dim)
            value, name = told.get(_DIM_VALUE), _text(told.get(_DIM_PARAM))
            extents.append(value if isinstance(value, int) else name or None)
    return {_text(info.get(_NAME)): extents}


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else ""


def _message(data: bytes) -> dict[int, Any]:
    return dict(_fields(io.BytesIO(data), len(data)))


def _fields(file: BinaryIO, end: int, *wanted: int) -> Iterator[tuple[int, int | bytes | None]]:
    """Number and value of each field up to a place, of those wanted or of all. For a long one, such as the graph, the value is
    its length, and the file stands where it begins."""
    while file.tell() < end:
        key = _varint(file)
        number, kind = key >> 3, key & 7
        if kind == 0:
            yield number, _varint(file)
        elif kind == 2:
            length = _varint(file)
            start = file.tell()
            if not wanted and (length > _LONGEST or number == _GRAPH):
                yield number, length
            elif not wanted or (number in wanted and length <= _LONGEST):
                yield number, file.read(length)
            file.seek(start + length)
        elif kind in (1, 5):
            file.seek(8 if kind == 1 else 4, io.SEEK_CUR)
        else:
            return


def _varint(file: BinaryIO) -> int:
    value, shift = 0, 0
    while shift < 70:
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << shift
        shift += 7
        if not byte[0] & 0x80:
            break
    return value
