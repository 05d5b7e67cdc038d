"""History and delay buffers behave like plain lists kept for every row."""

from __future__ import annotations

import random
from contextlib import contextmanager
from copy import deepcopy

import pytest
import torch

from mjlab_rec.utils.buffers import CircularBuffer, DelayBuffer

ROWS = 5


class ListHistory:
    """For each row, the list of its frames since its reset."""

    def __init__(self, max_len: int, shape: tuple[int, ...]) -> None:
        self.max_len = max_len
        self.zero = torch.zeros(shape)
        self.rows: list[list[torch.Tensor]] = [[] for _ in range(ROWS)]

    def append(self, data, ids):
        for i in ids:
            self.rows[i] = [*self.rows[i], data[i].clone()]

    def backfill(self, data, ids):
        for i in ids:
            self.rows[i] = [data[i].clone()]

    def reset(self, ids):
        for i in ids:
            self.rows[i] = []

    def window(self, i: int) -> torch.Tensor:
        frames = self.rows[i] or [self.zero]
        return torch.stack([frames[0]] * (self.max_len - 1) + frames)[-self.max_len :]

    def buffer(self) -> torch.Tensor:
        return torch.stack([self.window(i) for i in range(ROWS)])

    def lagged(self, lags) -> torch.Tensor:
        return torch.stack([self.window(i)[max(-1 - lag, -self.max_len)] for i, lag in lags])

    def lengths(self) -> list[int]:
        return [min(len(row), self.max_len) for row in self.rows]

    @contextmanager
    def rollback(self):
        rows = list(self.rows)
        yield
        self.rows = rows


def some_rows(rng: random.Random):
    """Random rows as the buffers take them, and as a list of numbers."""
    ids = sorted(rng.sample(range(ROWS), rng.randrange(ROWS + 1)))
    start = rng.randrange(ROWS)
    mask = torch.zeros(ROWS, dtype=torch.bool)
    mask[ids] = True
    return rng.choice(
        [
            (ids, ids),
            (torch.tensor(ids, dtype=torch.long), ids),
            (mask, ids),
            (slice(start, None), list(range(start, ROWS))),
            (None, list(range(ROWS))),
        ]
    )


def change(rng: random.Random, shape, buffer, model) -> None:
    """Do one random thing to the buffer and to the lists."""
    what = rng.choice(["append", "append", "append", "append rows", "reset", "reset", "backfill"])
    data = torch.randn(ROWS, *shape)
    rows, ids = some_rows(rng)
    if what == "append":
        buffer.append(data)
        model.append(data, range(ROWS))
    elif what == "append rows":
        buffer.append(data, rows)
        model.append(data, ids)
    elif what == "reset":
        buffer.reset(rows)
        model.reset(ids)
    else:
        buffer.backfill(data, rows)
        model.backfill(data, ids)
    data.fill_(float("nan"))  # The buffer must have its own copy.


def check(buffer: CircularBuffer, model: ListHistory) -> None:
    assert buffer.current_length.tolist() == model.lengths()
    if not buffer.is_initialized:
        return
    assert torch.equal(buffer.buffer, model.buffer())
    assert torch.equal(buffer.window, model.buffer())
    lags = torch.randint(-1, model.max_len + 2, (ROWS,))
    clamped = lags.clamp(0, model.max_len - 1).tolist()
    assert torch.equal(buffer[lags], model.lagged(enumerate(clamped)))
    assert torch.equal(buffer[1], model.lagged((i, 1) for i in range(ROWS)))


@pytest.mark.parametrize("max_len", [1, 2, 3, 7])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_history_equals_that_of_lists(max_len, shape):
    for seed in range(3):
        rng = random.Random(seed)
        torch.manual_seed(seed)
        buffer, model = CircularBuffer(max_len, ROWS, "cpu"), ListHistory(max_len, shape)
        for _ in range(60):
            if rng.random() < 0.1:
                with buffer.rollback(), model.rollback():
                    for _ in range(rng.randrange(4)):
                        change(rng, shape, buffer, model)
                    with buffer.rollback(), model.rollback():
                        change(rng, shape, buffer, model)
                    check(buffer, model)
            else:
                change(rng, shape, buffer, model)
            check(buffer, model)


def test_first_frame_fills_the_history_and_a_reset_row_waits_for_its_own():
    buffer = CircularBuffer(3, 2, "cpu")
    buffer.append(torch.tensor([[1.0], [10.0]]))
    buffer.append(torch.tensor([[2.0], [20.0]]))
    assert buffer.buffer.squeeze(-1).tolist() == [[1, 1, 2], [10, 10, 20]]
    buffer.reset(torch.tensor([1]))
    assert buffer.buffer.squeeze(-1).tolist() == [[1, 1, 2], [0, 0, 0]]
    assert buffer.current_length.tolist() == [2, 0]
    buffer.append(torch.tensor([[3.0], [30.0]]))
    assert buffer.buffer.squeeze(-1).tolist() == [[1, 2, 3], [30, 30, 30]]
    assert buffer[torch.tensor([1, 2])].tolist() == [[2], [30]]


def test_buffer_is_a_copy_and_window_a_view():
    buffer = CircularBuffer(3, 2, "cpu")
    for value in range(5):
        buffer.append(torch.full((2, 4), float(value)))
    copy, view = buffer.buffer, buffer.window
    assert copy.is_contiguous()
    flat = view.flatten(1)
    assert flat.data_ptr() == view.data_ptr() == buffer.window.data_ptr()
    assert flat[0].tolist() == [2.0] * 4 + [3.0] * 4 + [4.0] * 4
    copy.fill_(9.0)
    assert torch.equal(buffer.window.flatten(1), flat)


def test_steady_state_keeps_its_storage():
    buffer = CircularBuffer(4, 3, "cpu")
    buffer.append(torch.zeros(3, 2))
    addresses = set()
    for value in range(20):
        buffer.append(torch.full((3, 2), float(value)))
        addresses.add(buffer.window.data_ptr())
    assert len(addresses) == 4
    # Nothing is left to fill in once all rows have their first frame.
    assert buffer._pending == []


def test_ids_may_be_reused_after_reset():
    buffer = CircularBuffer(2, 3, "cpu")
    buffer.append(torch.ones(3, 1))
    ids = torch.tensor([1])
    buffer.reset(ids)
    ids.fill_(2)
    buffer.append(torch.full((3, 1), 5.0))
    assert buffer.buffer.squeeze(-1).tolist() == [[1, 5], [5, 5], [1, 5]]


def test_many_resets_before_a_frame_stay_correct_and_bounded():
    buffer = CircularBuffer(3, 4, "cpu")
    buffer.append(torch.ones(4, 1))
    for i in range(100):
        ids = torch.tensor([i % 3])
        buffer.reset(ids)
        buffer.append(torch.full((4, 1), float(i)), ids)
    assert len(buffer._pending) < 20
    buffer.append(torch.full((4, 1), 200.0))
    assert buffer.buffer.squeeze(-1).tolist() == [
        [99, 99, 200],
        [97, 97, 200],
        [98, 98, 200],
        [1, 1, 200],
    ]


def test_first_append_in_a_rollback_leaves_no_trace():
    buffer = DelayBuffer(0, 2, batch_size=2)
    with buffer.rollback():
        buffer.append(torch.ones(2, 1))
        assert buffer.is_initialized
    assert not buffer.is_initialized
    assert buffer.current_length.tolist() == [0, 0]


def test_rollback_happens_on_errors_too():
    buffer = CircularBuffer(2, 2, "cpu")
    buffer.append(torch.ones(2, 1))
    with pytest.raises(KeyError), buffer.rollback():
        buffer.append(torch.zeros(2, 1))
        raise KeyError
    assert buffer.buffer.unique().tolist() == [1.0]


def test_buffers_made_in_inference_mode_work_outside_of_it():
    with torch.inference_mode():
        history, delay = CircularBuffer(2, 2, "cpu"), DelayBuffer(0, 2, batch_size=2)
        for buffer in (history, delay):
            buffer.append(torch.ones(2, 1))
        delay.compute()
    for buffer in (history, delay):
        buffer.append(torch.zeros(2, 1))
        buffer.reset([0])
    assert history.buffer[:, 0].tolist() == [[0.0], [1.0]]
    delay.compute()


def test_wrong_frames_and_early_reads_are_explained():
    buffer = CircularBuffer(2, 3, "cpu")
    with pytest.raises(RuntimeError, match="Call append"):
        _ = buffer.buffer
    with pytest.raises(RuntimeError, match="Call append"):
        _ = buffer[0]
    with pytest.raises(ValueError, match=r"shape \(3, \.\.\.\).*got \(2, 1\)"):
        buffer.append(torch.zeros(2, 1))
    buffer.append(torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"shape \(3, 4\).*got \(3, 1\)"):
        buffer.append(torch.zeros(3, 1))
    with pytest.raises(ValueError, match="3, one per row, got 2"):
        _ = buffer[torch.zeros(2, dtype=torch.long)]
    with pytest.raises(ValueError, match="at least 1, got 0"):
        CircularBuffer(0, 3, "cpu")


class ListDelay:
    """The delay buffer's rules, row by row."""

    def __init__(self, buffer: DelayBuffer, generator: torch.Generator) -> None:
        self.cfg = buffer
        self.generator = generator
        self.history = ListHistory(buffer.max_lag + 1, (2,))
        self.lags = [0] * ROWS
        self.steps = [0] * ROWS
        self.phases = [0] * ROWS
        self.fresh = [True] * ROWS

    def reset(self, ids):
        self.history.reset(ids)
        for i in ids:
            self.lags[i], self.steps[i], self.fresh[i] = 0, 0, True

    def draw(self, low: int, high: int, count: int) -> list[int]:
        return torch.randint(low, high, (count,), generator=self.generator).tolist()

    def compute(self, ids):
        cfg = self.cfg
        if cfg.min_lag == cfg.max_lag:
            for i in ids:
                self.lags[i] = cfg.min_lag
            return
        count = ROWS if cfg.per_env else 1
        lags = self.draw(cfg.min_lag, cfg.max_lag + 1, count) * (ROWS // count)
        phases, chances = [0] * ROWS, [1.0] * ROWS
        if cfg.update_period and cfg.per_env_phase:
            phases = self.draw(0, cfg.update_period, ROWS)
        if cfg.hold_prob:
            chances = torch.rand(count, generator=self.generator).tolist() * (ROWS // count)
        for i in ids:
            if self.steps[i] == 0:
                self.phases[i] = phases[i]
            step = self.steps[i] + self.phases[i]
            due = cfg.update_period == 0 or step % cfg.update_period == 0
            if self.fresh[i] or (due and chances[i] >= cfg.hold_prob):
                self.lags[i] = lags[i]
            self.steps[i] += 1
            self.fresh[i] = False

    def peek(self) -> torch.Tensor:
        return self.history.lagged(enumerate(self.lags))

    @contextmanager
    def rollback(self):
        saved = deepcopy((self.lags, self.steps, self.phases, self.fresh))
        with self.history.rollback():
            yield
        self.lags, self.steps, self.phases, self.fresh = saved


DELAYS = [
    dict(min_lag=0, max_lag=0),
    dict(min_lag=2, max_lag=2),
    dict(min_lag=2, max_lag=2, hold_prob=0.5, update_period=3),
    dict(min_lag=0, max_lag=3),
    dict(min_lag=1, max_lag=4, per_env=False),
    dict(min_lag=1, max_lag=3, hold_prob=0.6),
    dict(min_lag=0, max_lag=3, update_period=4),
    dict(min_lag=0, max_lag=5, update_period=3, per_env_phase=False),
    dict(min_lag=1, max_lag=3, update_period=2, hold_prob=0.4),
    dict(min_lag=0, max_lag=3, per_env=False, update_period=3, hold_prob=0.4),
    dict(min_lag=0, max_lag=3, hold_prob=1.0),
]


@pytest.mark.parametrize("cfg", DELAYS, ids=str)
def test_delay_equals_that_of_lists(cfg):
    for seed in range(3):
        rng = random.Random(seed)
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        model_generator = torch.Generator().manual_seed(seed)
        buffer = DelayBuffer(**cfg, batch_size=ROWS, generator=generator)
        model = ListDelay(buffer, model_generator)

        def step(buffer=buffer, model=model, rng=rng):
            data = torch.randn(ROWS, 2)
            rows, ids = some_rows(rng)
            what = rng.choice(["step", "step", "step", "rows", "reset", "backfill", "set"])
            if what == "step":
                rows, ids = None, range(ROWS)
            if what in ("step", "rows"):
                buffer.append(data, rows)
                model.history.append(data, ids)
                model.compute(ids)
                assert torch.equal(buffer.compute(rows), model.peek())
            elif what == "reset":
                buffer.reset(rows)
                model.reset(ids)
            elif what == "backfill":
                buffer.backfill(data, rows)
                model.history.backfill(data, ids)
            else:
                lags = torch.randint(0, 6, (len(ids),))
                buffer.set_lags(lags, rows)
                for i, lag in zip(ids, lags.clamp(buffer.min_lag, buffer.max_lag), strict=True):
                    model.lags[i], model.fresh[i] = int(lag), False

        for _ in range(60):
            if rng.random() < 0.15:
                with buffer.rollback(), model.rollback():
                    step()
                    step()
            else:
                step()
            assert buffer.current_lags.tolist() == model.lags
            assert buffer.current_length.tolist() == model.history.lengths()
            if buffer.is_initialized:
                assert torch.equal(buffer.peek(), model.peek())


def run(cfg, resets: dict[int, list[int]], explicit: bool = False) -> torch.Tensor:
    """Outputs (steps, rows, 1) with the given rows reset before the given steps.

    As in an environment, the generator starts again in each step. `explicit` gives the reset rows
    their first frame apart from the others, which see that step only afterwards.
    """
    generator = torch.Generator()
    buffer = DelayBuffer(**cfg, batch_size=ROWS, generator=generator)
    outputs = []
    for t in range(30):
        data = torch.arange(ROWS).unsqueeze(1) * 100.0 + t
        generator.manual_seed(t)
        ids = resets.get(t)
        if ids is not None:
            buffer.reset(torch.tensor(ids))
        if ids is not None and explicit:
            others = [i for i in range(ROWS) if i not in ids]
            buffer.append(data, torch.tensor(ids))
            buffer.compute(torch.tensor(ids))
            generator.manual_seed(t)
            buffer.append(data, torch.tensor(others))
            outputs.append(buffer.compute(torch.tensor(others)))
        else:
            buffer.append(data)
            outputs.append(buffer.compute())
    return torch.stack(outputs)


@pytest.mark.parametrize("cfg", DELAYS, ids=str)
def test_resets_do_not_change_other_rows(cfg):
    calm = run(cfg, {})
    busy = run(cfg, {7: [1], 8: [1, 3], 20: [3]})
    others = [0, 2, 4]
    assert torch.equal(calm[:, others], busy[:, others])
    # A row's first frame after its reset is all that it can see.
    assert busy[7, 1].item() == 107.0
    assert busy[8, [1, 3]].flatten().tolist() == [108.0, 308.0]


@pytest.mark.parametrize("cfg", DELAYS, ids=str)
def test_automatic_and_explicit_reset_give_the_same(cfg):
    resets = {7: [1], 8: [1, 3], 20: [0, 3]}
    assert torch.equal(run(cfg, resets), run(cfg, resets, explicit=True))


def test_lags_stay_in_range_however_seldom_they_are_drawn():
    for cfg in (dict(hold_prob=1.0), dict(update_period=50)):
        buffer = DelayBuffer(2, 4, batch_size=ROWS, **cfg)
        for t in range(6):
            buffer.append(torch.full((ROWS, 1), float(t)))
            buffer.compute()
            assert (buffer.current_lags >= 2).all() and (buffer.current_lags <= 4).all()


def test_lags_set_by_hand_stay_while_they_are_held():
    buffer = DelayBuffer(0, 4, batch_size=3, hold_prob=1.0)
    buffer.set_lags(torch.tensor([9, 1]), torch.tensor([0, 2]))
    for t in range(4):
        buffer.append(torch.full((3, 1), float(t)))
        buffer.compute()
    assert buffer.current_lags[[0, 2]].tolist() == [4, 1]


def test_results_are_new_tensors():
    for cfg in (dict(min_lag=1, max_lag=1), dict(min_lag=0, max_lag=2)):
        buffer = DelayBuffer(**cfg, batch_size=2)
        buffer.append(torch.ones(2, 1))
        buffer.compute().fill_(7.0)
        assert buffer.peek().tolist() == [[1.0], [1.0]]


def test_bad_delays_are_rejected():
    with pytest.raises(ValueError, match="min_lag must be >= 0, got -1"):
        DelayBuffer(-1, 3)
    with pytest.raises(ValueError, match=r"max_lag \(3\) must be >= min_lag \(5\)"):
        DelayBuffer(5, 3)
    with pytest.raises(ValueError, match=r"hold_prob must be in \[0, 1\], got 1.5"):
        DelayBuffer(0, 3, hold_prob=1.5)
    with pytest.raises(ValueError, match="update_period must be >= 0, got -2"):
        DelayBuffer(0, 3, update_period=-2)
    with pytest.raises(RuntimeError, match="Buffer not initialized.*Call append"):
        DelayBuffer(0, 3).compute()


@pytest.mark.cuda
def test_no_step_waits_for_the_gpu():
    history = CircularBuffer(4, 8, "cuda")
    delays = [
        DelayBuffer(**cfg, batch_size=8, device="cuda", generator=torch.Generator(device="cuda"))
        for cfg in DELAYS
    ]
    data, ids = torch.randn(8, 3, device="cuda"), torch.tensor([1, 5], device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(6):
            for buffer in (history, *delays):
                if step == 3:
                    buffer.reset(ids)
                    buffer.append(data, ids)
                    buffer.reset(ids)
                with buffer.rollback():
                    buffer.append(data)
                buffer.append(data)
            assert history.buffer.shape == (8, 4, 3)
            for delay in delays:
                delay.compute()
                delay.compute(ids)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(history.buffer[:, -1], data)
