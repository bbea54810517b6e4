"""A job over two local workers: the values of a loop, and rows that fail beside the others."""

import os
import shutil
import sys

import numpy as np
import pytest
from test_rows import images

import tconvc

pytest.importorskip("pyspark")
pytest.importorskip("pyarrow")
if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
    pytest.skip("Spark needs Java", allow_module_level=True)

import tconvc.spark


@pytest.fixture(scope="module")
def spark():
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    builder = builder.config("spark.driver.bindAddress", "127.0.0.1").config("spark.driver.host", "127.0.0.1")
    builder = builder.config("spark.sql.shuffle.partitions", "2").config("spark.driver.memory", "512m")
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    yield session
    session.stop()


def array(struct):
    return np.array(struct["data"], np.float32).reshape(struct["shape"])


def test_a_job_on_flat_columns(spark, upsample):
    made, expected = upsample
    rows = images(40)
    data = [(i, row.reshape(-1).tolist()) for i, row in enumerate(rows)]
    data[3] = (3, None)
    data[4] = (4, [1.0] * 7)
    frame = spark.createDataFrame(data, "id int, image array<float>").repartition(4)
    found = tconvc.spark.predict(
        frame, tconvc.load(made), columns={"image": "x"}, shapes={"image": [2, 5, -1]}, outputs={"y": "large"}
    )
    assert [field.name for field in found.schema.fields] == ["id", "image", "large", "error"]
    collected = {row["id"]: row for row in found.collect()}
    assert sorted(collected) == list(range(40))
    for number, row in collected.items():
        if number in (3, 4):
            assert row["large"] is None and row["error"]
        else:
            assert row["error"] is None
            np.testing.assert_allclose(array(row["large"]), expected(rows[number][None])[0], rtol=1e-5, atol=1e-5)


def test_outputs_are_inputs_of_the_next(spark, upsample):
    made, expected = upsample
    rows = images(6)
    data = [(i, (list(row.shape), row.reshape(-1).tolist())) for i, row in enumerate(rows)]
    frame = spark.createDataFrame(data, "id int, x struct<shape: array<int>, data: array<float>>")
    model = tconvc.load(made)
    found = frame.mapInArrow(tconvc.spark.predict_udf(model), tconvc.spark.result_schema(frame, model))
    for row in found.collect():
        np.testing.assert_allclose(array(row["y"]), expected(rows[row["id"]][None])[0], rtol=1e-5, atol=1e-5)
