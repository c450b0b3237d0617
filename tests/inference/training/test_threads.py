"""Threads: fewer where steps are slow and fewer are faster, by times that the tests give."""

import pytest

from inference.training.threads import FIRST, WINDOW, Threads


class Machine:
    """A machine whose steps take a time by the number of threads."""

    def __init__(self, times):
        self.times, self.number, self.trials = times, max(times), 0
        self.threads = Threads(self.number, self.use)

    def use(self, number):
        self.number = number

    def trial(self):
        self.trials += 1
        return self.times[self.number]

    def steps(self, many):
        said = [self.threads.step(self.times[self.number], self.trial) for _ in range(many)]
        return [sentence for sentence in said if sentence]


def test_where_one_thread_is_much_faster_it_is_taken_at_the_start():
    busy = Machine({2: 2.5, 1: 0.07})
    assert busy.steps(FIRST - 1) == []
    (said,) = busy.steps(1)
    assert busy.number == busy.threads.number == 1
    assert f"After {FIRST} steps training goes on with 1 thread instead of 2" in said
    assert "0.07 s instead of 2.5 s" in said
    trials = busy.trials
    assert busy.steps(200) == []
    assert busy.trials == trials, "with one thread there is nothing to try"


@pytest.mark.parametrize("times", [{2: 0.05, 1: 0.07}, {2: 0.07, 1: 0.05}])
def test_a_small_gain_changes_nothing_and_is_tried_once(times):
    quiet = Machine(times)
    assert quiet.steps(FIRST) == []
    trials = quiet.trials
    assert trials > 0
    assert quiet.steps(200) == []
    assert (quiet.number, quiet.trials) == (2, trials)


def test_a_process_that_begins_later_is_noticed():
    machine = Machine({2: 0.05, 1: 0.07})
    machine.steps(100)
    machine.times = {2: 2.5, 1: 0.14}
    assert len(machine.steps(WINDOW)) == 1
    assert machine.number == 1


def test_steps_that_grow_with_the_model_are_tried_once_and_stay():
    machine = Machine({2: 0.05, 1: 0.07})
    machine.steps(100)
    trials = machine.trials
    machine.times = {2: 0.5, 1: 0.7}
    assert machine.steps(100) == []
    assert (machine.number, machine.trials) == (2, 2 * trials)


def test_of_many_threads_the_best_number_is_taken():
    machine = Machine({12: 3.0, 6: 0.3, 3: 0.1, 1: 0.2})
    assert "3 threads instead of 12" in machine.steps(FIRST)[0]
    assert machine.number == 3


def test_a_run_that_goes_on_keeps_its_number_but_never_takes_more_than_there_are():
    machine = Machine({2: 0.05, 1: 0.07})
    machine.threads.take(1)
    assert machine.number == 1
    machine.threads.take(2)
    assert machine.number == 1


def test_a_trial_that_fails_leaves_the_number_as_it_was():
    machine = Machine({2: 0.05, 1: 0.07})

    def fails():
        raise MemoryError

    machine.steps(FIRST - 1)
    with pytest.raises(MemoryError):
        machine.threads.step(0.05, fails)
    assert machine.number == 2
