"""What an ONNX file says of itself beside its graph: a few fields of the outermost message, read without the rest."""

from __future__ import annotations

import io
import os
from typing import Any, BinaryIO, NamedTuple

# Numbers of fields of ModelProto, StringStringEntryProto, and GraphProto.
_PRODUCER_NAME, _PRODUCER_VERSION, _DOMAIN, _MODEL_VERSION, _DOC_STRING, _GRAPH, _METADATA = 2, 3, 4, 5, 6, 7, 14
_KEY, _VALUE = 1, 2
_GRAPH_NAME, _GRAPH_DOC_STRING = 2, 10
# Nothing that is read here is longer.
_LONGEST = 1 << 20


class ModelMetadata(NamedTuple):
    """What a model's file says of itself."""

    producer_name: str
    producer_version: str
    domain: str
    version: int
    description: str
    graph_name: str
    graph_description: str
    custom_metadata_map: dict[str, str]


def model_metadata(source: Any) -> ModelMetadata:
    """That of a file, or of its bytes, which are known to be those of a model."""
    if hasattr(source, "SerializeToString"):
        source = source.SerializeToString()
    if isinstance(source, bytes | bytearray | memoryview):
        return _read(io.BytesIO(source))
    with open(os.fspath(source), "rb") as file:
        return _read(file)


def _read(file: BinaryIO) -> ModelMetadata:
    end = file.seek(0, io.SEEK_END)
    file.seek(0)
    model: dict[int, Any] = {}
    graph: dict[int, Any] = {}
    entries: dict[str, str] = {}
    for number, value, length in _fields(file, end):
        if number == _GRAPH and length is not None:
            graph = {inner: told for inner, told, _ in _fields(file, file.tell() + length)}
        elif number == _METADATA and isinstance(value, bytes):
            entry = {inner: told for inner, told, _ in _fields(io.BytesIO(value), len(value))}
            entries[_text(entry.get(_KEY))] = _text(entry.get(_VALUE))
        else:
            model[number] = value
    version = model.get(_MODEL_VERSION, 0)
    return ModelMetadata(
        producer_name=_text(model.get(_PRODUCER_NAME)),
        producer_version=_text(model.get(_PRODUCER_VERSION)),
        domain=_text(model.get(_DOMAIN)),
        version=version if isinstance(version, int) else 0,
        description=_text(model.get(_DOC_STRING)),
        graph_name=_text(graph.get(_GRAPH_NAME)),
        graph_description=_text(graph.get(_GRAPH_DOC_STRING)),
        custom_metadata_map=entries,
    )


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else ""


def _fields(file: BinaryIO, end: int) -> Any:
    """Number and value of each field up to a place; of messages, which are for the caller to read, the length."""
    while file.tell() < end:
        key = _varint(file)
        number, kind = key >> 3, key & 7
        if kind == 0:
            yield number, _varint(file), None
        elif kind == 2:
            length = _varint(file)
            start = file.tell()
            if number == _GRAPH and length > 0:
                yield number, None, length
            else:
                yield number, file.read(length) if length <= _LONGEST else None, None
            file.seek(start + length)
        elif kind in (1, 5):
            file.seek(8 if kind == 1 else 4, io.SEEK_CUR)
        else:
            return


def _varint(file: BinaryIO) -> int:
    value, shift = 0, 0
    while shift < 64:
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << shift
        shift += 7
        if not byte[0] & 0x80:
            break
    return value
