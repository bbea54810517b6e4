"""A job over two actors: the values of a loop, and rows that fail beside the others."""

import numpy as np
import pytest
from test_rows import images

import tconvc

ray = pytest.importorskip("ray")
pytest.importorskip("ray.data")

import tconvc.ray  # noqa: E402


@pytest.fixture(scope="module")
def cluster():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()


def test_batches_of_columns(upsample):
    made, expected = upsample
    rows = images(6)
    column = np.empty(6, object)
    column[:] = rows
    frozen = np.stack(rows[::3])
    frozen.flags.writeable = False
    predictor = tconvc.ray.Predictor(made, columns={"image": "x"}, outputs={"y": "large"})
    found = predictor({"id": np.arange(6), "image": column})
    assert set(found) == {"id", "large", "error"} and list(found["error"]) == [""] * 6
    for row, y in zip(rows, found["large"], strict=True):
        np.testing.assert_allclose(y, expected(row[None])[0], rtol=1e-5, atol=1e-5)
    found = tconvc.ray.Predictor(made, columns={"image": "x"}, keep=True)({"image": frozen})
    assert set(found) == {"image", "y", "error"} and found["y"].shape == (2, 3, 10, 6)


def test_a_job(cluster, upsample):
    made, expected = upsample
    rows = images(60)
    items = [{"id": i, "x": row} for i, row in enumerate(rows)]
    items[7]["x"] = np.zeros([4, 5, 4], np.float32)
    dataset = ray.data.from_items(items, override_num_blocks=6)
    found = tconvc.ray.predict(dataset, made, batch_size=8, concurrency=2).take_all()
    assert sorted(row["id"] for row in found) == list(range(60))
    for row in found:
        if row["id"] == 7:
            assert "[1, 4, 5, 4]" in row["error"] and row["y"].size == 0
        else:
            assert row["error"] == ""
            np.testing.assert_allclose(row["y"], expected(rows[row["id"]][None])[0], rtol=1e-5, atol=1e-5)


def test_images_of_one_shape_stay_tensors(cluster, upsample):
    made, expected = upsample
    x = np.random.default_rng(1).standard_normal([32, 2, 5, 4]).astype(np.float32)
    found = tconvc.ray.predict(ray.data.from_numpy(x), made, columns={"data": "x"}, concurrency=(1, 2))
    batch = found.take_batch(32)
    assert batch["y"].shape == (32, 3, 10, 8)
    # Blocks may come in another order.
    order = lambda y: np.argsort(y[:, 0, 0, 0])  # noqa: E731
    wanted = expected(x)
    np.testing.assert_allclose(batch["y"][order(batch["y"])], wanted[order(wanted)], rtol=1e-5, atol=1e-5)
