#!/usr/bin/env python3
"""Runs the node tests of the installed `onnx` package, at every opset that they hold at.

  python node_cases.py TCONVC FOLDER [--only TEXT] [--list]

The package makes its cases itself; they are written below FOLDER in the layout of
ONNX's backend tests, as `NAME` for the opset that the package gives and as
`NAME@OPSET` for every older opset from 7 on in which the same nodes stand: where
an operator had an earlier version, onnx.checker accepts the model, and the
package's own reference evaluator computes the same outputs. `TCONVC verify` then
runs over the folder.

Every case passes, is refused with an error that names what is refused and is one
of those listed in LEFT_OUT below with its reason, or differs for a reason that
DIFFERS lists, by no more than that says. Anything else is printed and makes the
exit status 1. --list prints the refused and the differing cases, too.

Needs: pip install -r requirements.txt
"""
import argparse
import collections
import pathlib
import re
import subprocess
import sys
import warnings

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases
from onnx.reference import ReferenceEvaluator

# Oldest opset whose models are read in every detail.
OLDEST = 7

# What is left out on purpose, and why: a pattern of the error, the reason.
LEFT_OUT = [
    (r"ai\.onnx\.preview", "training and preview operators are not part of a network that runs"),
    (r"ai\.onnx\.ml", "classical learning on tables and strings, not layers of networks"),
    (r"ImageDecoder", "decoding of image files belongs in front of a network"),
    (r"RegexFullMatch|StringConcat|StringNormalizer|StringSplit|TfIdfVectorizer|ArrayFeatureExtractor",
     "operators on text: strings are passed through, not computed with"),
    (r"NegativeLogLikelihoodLoss|SoftmaxCrossEntropyLoss", "losses are for training"),
    (r"(input|output) `[^`]*` is (a sequence|an optional)",
     "sequences and optionals as inputs or outputs: inside of a network they are taken apart when it is read"),
    (r"SplitToSequence.*known at run time only", "lists whose number of tensors follows from data"),
    (r"\(Scan\): the operator as it was before opset 9", "Scan of opset 8, with a batch of sequences of different lengths"),
]

# What differs from the package's values, and why: a pattern of the name, the largest difference
# (relative to the value, then absolute), the reason.
DIFFERS = [
    (r"test_bernoulli", 0, np.inf, "random numbers"),
    (r"bf16", 2**-7, 0, "bf16: one step of the type, which the package's tolerance does not have room for"),
    (r"fp16", 2**-9, 0, "f16: two steps of the type, after a dozen roundings to it"),
    (r"test_dft_inverse", 0, 1e-6, "the package's value is the rounding noise of its algorithm, ours is nearer to 0"),
]

# Meaning changed with the opset, and the package's evaluator has only the new one.
CHANGED = {"Softmax": 13, "LogSoftmax": 13, "Hardmax": 13}


def nodes(graph):
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from nodes(inner)


def older_opsets(model):
    """Opsets below the model's in which one of its operators had another version: the newest of each."""
    current = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), None)
    if current is None or len(model.functions):
        return []
    since = set()
    history = collections.defaultdict(set)
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            history[schema.name].add(schema.since_version)
    for node in nodes(model.graph):
        if node.domain in ("", "ai.onnx"):
            # A version ends one opset before the next one begins.
            since |= {version - 1 for version in history[node.op_type] if OLDEST < version <= current}
    changed = max((CHANGED.get(node.op_type, 0) for node in nodes(model.graph)), default=0)
    return sorted(version for version in since if version >= changed)


def same(expected, found):
    if isinstance(expected, (list, tuple)):
        return len(expected) == len(found) and all(same(a, b) for a, b in zip(expected, found))
    expected, found = np.asarray(expected), np.asarray(found)
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return False
    if expected.dtype.kind not in "fc":
        return bool(np.array_equal(expected, found))
    return bool(np.allclose(expected, found, rtol=1e-3, atol=1e-7, equal_nan=True))


def at_opset(case, opset):
    """The case's model for an older opset, where it means the same there."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = opset
    try:
        onnx.checker.check_model(model, full_check=True)
        evaluator = ReferenceEvaluator(model)
        names = [value.name for value in model.graph.input]
        for inputs, outputs in case.data_sets:
            found = evaluator.run(None, dict(zip(names, inputs)))
            if not all(same(a, b) for a, b in zip(outputs, found)):
                return None
    except Exception:  # Whatever the package throws: the model is not one of that opset.
        return None
    return model


def write_value(path, name, value, value_type):
    """A tensor, sequence or optional as ONNX's own tests store them."""
    kind = value_type.WhichOneof("value")
    if kind == "tensor_type":
        if isinstance(value, onnx.TensorProto):
            proto = value
        else:
            proto = numpy_helper.from_array(np.asarray(value), name)
            if proto.data_type != value_type.tensor_type.elem_type:
                # Types that NumPy lacks come as integers with their bits.
                proto.data_type = value_type.tensor_type.elem_type
        proto.name = name
    elif kind == "sequence_type":
        proto = numpy_helper.from_list(value, name)
    else:
        proto = numpy_helper.from_optional(value, name)
    path.write_bytes(proto.SerializeToString())


def write_case(folder, model, data_sets):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    for number, (inputs, outputs) in enumerate(data_sets):
        data = folder / f"test_data_set_{number}"
        data.mkdir(exist_ok=True)
        for kind, ports, values in [("input", model.graph.input, inputs), ("output", model.graph.output, outputs)]:
            for index, (port, value) in enumerate(zip(ports, values)):
                write_value(data / f"{kind}_{index}.pb", port.name, value, port.type)


def write_cases(folder, only):
    """Writes all cases; gives their number, and the names of those that the package itself cannot store."""
    count, unstored = 0, []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = collect_testcases(None)
        for case in cases:
            if case.model is None or only not in case.name:
                continue
            models = {case.name: case.model}
            for opset in older_opsets(case.model):
                if model := at_opset(case, opset):
                    models[f"{case.name}@{opset}"] = model
            for name, model in models.items():
                try:
                    write_case(folder / name, model, case.data_sets)
                    count += 1
                except Exception as error:  # Says so below, and by name.
                    unstored.append(f"{name}: {' '.join(str(error).split())[:160]}")
    return count, unstored


DIFFERENCE = re.compile(r"element \d+ is (\S+), expected is (\S+) ")


def explained(name, found, expected):
    """The reason for which a case may differ by that much, or None."""
    for pattern, relative, absolute, reason in DIFFERS:
        if re.search(pattern, name) and abs(found - expected) <= max(relative * abs(expected), absolute):
            return reason
    return None


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("binary")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--written", action="store_true", help="the cases are there already")
    arguments = parser.parse_args()
    if arguments.written:
        count, unstored = sum(1 for _ in arguments.folder.glob("*/model.onnx")), []
    else:
        count, unstored = write_cases(arguments.folder, arguments.only)
    if not count:
        sys.exit("no case has that name")
    run = subprocess.run(
        [arguments.binary, "verify", str(arguments.folder)], capture_output=True, text=True
    )
    passed, wrong = 0, []
    refused, differing = collections.defaultdict(list), collections.defaultdict(list)
    for line in run.stdout.splitlines():
        if line.startswith("ok "):
            passed += 1
        elif found := re.match(r"FAILED\s+(\S+): (.*)", line):
            name, problem = pathlib.Path(found[1]).name, found[2]
            named = "not supported" in problem or "opset" in problem
            reason = next((reason for pattern, reason in LEFT_OUT if re.search(pattern, problem)), None)
            differs = DIFFERENCE.search(problem)
            if reason and named:
                refused[reason].append(f"{name}: {problem}")
            elif differs and (why := explained(name, float(differs[1]), float(differs[2]))):
                differing[why].append(f"{name}: {problem}")
            else:
                wrong.append(f"{name}: {problem}")
    left, other = sum(map(len, refused.values())), sum(map(len, differing.values()))
    seen = passed + left + other + len(wrong)
    if seen != count:
        wrong.append(f"{count} cases, {seen} of them have a result: {run.stderr.strip()[-300:]}")
    for line in unstored + wrong:
        print(line)
    for what, kinds in [("left out", refused), ("differ", differing)]:
        for reason, lines in sorted(kinds.items()):
            print(f"{what}, {len(lines)}: {reason}")
            if arguments.list:
                print(*(f"  {line}" for line in lines), sep="\n")
    print(f"{passed} passed, {left} refused by name, {other} differ for a reason, {len(wrong)} wrong,"
          f" {len(unstored)} that onnx itself cannot store")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
