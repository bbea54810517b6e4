#!/usr/bin/env python3
"""Makes audio of the mel spectrograms of a parquet file, with Spark.

  python vocoder.py MODEL MELS AUDIO [--master local[2]]

MODEL has one input, f32[N, MELS, FRAMES], and one output. MELS has the columns `id`,
`frames`, and `mel`, an array<float> of MELS x FRAMES. AUDIO gets `id`, `audio` (a
struct of shape and data), and `error`: null, or what went wrong with the row. What
is there with no error is not made again.

Needs: pip install tconvc[spark]
"""
import argparse
import os
import pathlib
import sys

from pyspark.sql import SparkSession

import tconvc
import tconvc.spark


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("mels")
    parser.add_argument("audio")
    parser.add_argument("--master", help="where no other has been configured: local[2], ..")
    options = parser.parse_args()
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName("vocoder")
    spark = (builder.master(options.master) if options.master else builder).getOrCreate()

    model = tconvc.load(options.model)
    (given,), (made,) = model.inputs, model.outputs
    bands = given.shape[1]
    frame = spark.read.parquet(options.mels).select("id", "mel")
    if pathlib.Path(options.audio).exists():
        frame = frame.join(spark.read.parquet(options.audio).where("error is null"), "id", "left_anti")
    audio = tconvc.spark.predict(
        frame, model, columns={"mel": given.name}, shapes={"mel": [bands, -1]}, outputs={made.name: "audio"}
    )
    audio.drop("mel").write.mode("append").parquet(options.audio)
    found = spark.read.parquet(options.audio).groupBy("id").agg({"audio": "count"}).collect()
    good = sum(row[1] > 0 for row in found)
    print(f"{good} rows made, {len(found) - good} failed")
    spark.stop()


if __name__ == "__main__":
    main()
