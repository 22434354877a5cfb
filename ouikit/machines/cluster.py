"""A cluster's scheduler, event by event: rigid, moldable and malleable jobs under one policy.

Jobs wait first come, first served, with EASY backfill: the first job of the queue gets a reservation, and a
later one may overtake it only where that does not delay it (Lifka, "The ANL/IBM SP scheduling system",
JSSPP 1995). Run times are known to the scheduler, and a malleable job is expected to keep its nodes.

Source of the malleable policy: inferred. Iserte et al., IEEE Trans. Computers 70(9), 2021 publish what
their scheduler sees (least, most and preferred nodes, factor, pending jobs, free nodes), not its rules.
"""

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

Curve = Callable[[int], float]
Cost = Callable[[int, int], float]


def amdahl(serial: float) -> Curve:
    """Speed-up 1 / (serial + (1 − serial) / n) on n nodes.

    >>> amdahl(0.0)(8), amdahl(1.0)(8)
    (8.0, 1.0)

    Raises:
        ValueError: the serial share does not lie between 0 and 1.
    """
    if not 0 <= serial <= 1:
        raise ValueError(f"the serial share lies between 0 and 1: got {serial}")
    return lambda n: 1 / (serial + (1 - serial) / n)


def knee(nodes: int) -> Curve:
    """Speed-up min(n, nodes): linear to a knee, and flat beyond it.

    >>> knee(4)(2), knee(4)(16)
    (2.0, 4.0)

    Raises:
        ValueError: the knee lies below one node.
    """
    if nodes < 1:
        raise ValueError(f"the knee lies at one node or more: got {nodes}")
    return lambda n: float(min(n, nodes))


@dataclass(frozen=True)
class Job:
    """What a user submits: `work` seconds on one node, and how many nodes the job can live with.

    The sizes it can take are `request` times or divided by powers of two, from `least` to `most`. A rigid
    submission asks for `request`, a moldable one takes what is free within the range.

    >>> Job(0.0, 100.0, amdahl(0.0), request=8, least=2, most=16).sizes
    (2, 4, 8, 16)

    Raises:
        ValueError: the work is not positive, or the nodes are not in the order 1 ≤ least ≤ request ≤ most,
            or the preferred number is not one of the sizes.
    """

    arrival: float
    work: float
    curve: Curve
    request: int
    least: int
    most: int
    preferred: int | None = None

    def __post_init__(self) -> None:
        if not self.work > 0:
            raise ValueError(f"work is a positive number of seconds on one node: got {self.work}")
        if not 1 <= self.least <= self.request <= self.most:
            raise ValueError(
                f"nodes must be 1 ≤ least ≤ request ≤ most: got {self.least}, {self.request}, {self.most}"
            )
        if self.preferred is not None and self.preferred not in self.sizes:
            raise ValueError(f"the preferred size {self.preferred} is none of the sizes {self.sizes}")

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Sizes that the job can take, in rising order."""
        found, size = [self.request], self.request
        while size % 2 == 0 and size // 2 >= self.least:
            size //= 2
            found.append(size)
        size = self.request * 2
        while size <= self.most:
            found.append(size)
            size *= 2
        return tuple(sorted(found))

    def seconds(self, nodes: int) -> float:
        """Run time on a constant number of nodes."""
        return self.work / self.curve(nodes)


@dataclass(frozen=True)
class Schedule:
    """What happened: when each job, in the order of the list, started and ended, and who held which nodes.

    `holdings` are (time, job, nodes) in the order of time, a row per start, per change as its nodes are
    taken or given back, and per end (0 nodes). `changes` are (time of the decision, job, nodes before,
    nodes after).
    """

    nodes: int
    arrival: np.ndarray
    start: np.ndarray
    end: np.ndarray
    holdings: list[tuple[float, int, int]]
    changes: list[tuple[float, int, int, int]]

    @property
    def makespan(self) -> float:
        """Seconds from the first arrival to the last end."""
        return float(self.end.max() - self.arrival.min())

    @property
    def throughput(self) -> float:
        """Completed jobs per second of the makespan."""
        return len(self.end) / self.makespan

    @property
    def waiting(self) -> np.ndarray:
        """Per job, from arrival to start."""
        return self.start - self.arrival

    @property
    def execution(self) -> np.ndarray:
        """Per job, from start to end."""
        return self.end - self.start

    @property
    def completion(self) -> np.ndarray:
        """Per job, from arrival to end."""
        return self.end - self.arrival

    @cached_property
    def allocated(self) -> tuple[np.ndarray, np.ndarray]:
        """Times, and the nodes that are allocated from each of them to the next."""
        held: dict[int, int] = {}
        times, counts, total = [float(self.arrival.min())], [0], 0
        for time, job, nodes in self.holdings:
            total += nodes - held.get(job, 0)
            held[job] = nodes
            if time == times[-1]:
                counts[-1] = total
            else:
                times.append(time)
                counts.append(total)
        return np.array(times), np.array(counts)

    @property
    def node_seconds(self) -> float:
        """Integral of the allocated nodes over time."""
        times, counts = self.allocated
        return float((np.diff(times) * counts[:-1]).sum())

    @property
    def allocation_rate(self) -> float:
        """Share of the cluster that is allocated, averaged over the makespan."""
        return self.node_seconds / (self.nodes * self.makespan)

    def energy(self, idle: float, busy: float) -> float:
        """Joules over the makespan, if a node draws `busy` watts while allocated and `idle` otherwise."""
        return busy * self.node_seconds + idle * (self.nodes * self.makespan - self.node_seconds)


class _Running:
    """A job on the machine: what it holds, and the work that was left when it last took a step."""

    __slots__ = (
        "coming",
        "end",
        "held",
        "job",
        "left",
        "next_check",
        "number",
        "paused",
        "seen",
        "since",
        "target",
    )

    def __init__(self, number: int, job: Job, nodes: int, now: float, period: float) -> None:
        self.number, self.job, self.held, self.target = number, job, nodes, nodes
        self.left, self.since, self.paused = job.work, now, False
        self.end = now + job.seconds(nodes)
        self.next_check, self.seen, self.coming = now + period, -1, 0


# What happens first of all that happens at one time.
_END, _CHANGED, _ARRIVAL, _CHECK = range(4)


class _Cluster:
    def __init__(
        self,
        jobs: Sequence[Job],
        nodes: int,
        moldable: bool,
        malleable: bool,
        cost: Cost,
        period: float,
        joint: bool,
    ) -> None:
        self.jobs, self.nodes, self.moldable, self.malleable = jobs, nodes, moldable, malleable
        self.cost, self.period, self.joint = cost, period, joint
        self.free, self.now, self.state = nodes, 0.0, 0
        self.noticed = False  # a job came, went or gave back nodes; `state` counts what the policy can see
        self.queue: list[int] = []
        self.running: dict[int, _Running] = {}
        self.events = [(job.arrival, _ARRIVAL, number) for number, job in enumerate(jobs)]
        heapq.heapify(self.events)
        self.start, self.end = np.full(len(jobs), np.nan), np.full(len(jobs), np.nan)
        self.holdings: list[tuple[float, int, int]] = []
        self.changes: list[tuple[float, int, int, int]] = []

    def run(self) -> None:
        while self.events:
            self.now, kind, number = heapq.heappop(self.events)
            if kind == _ARRIVAL:
                self.queue.append(number)
                self.noticed = True
            elif kind == _CHECK:
                self.check(self.running.get(number))
            elif kind == _CHANGED:
                self.changed(self.running[number])
            else:
                self.finish(self.running.get(number))
            # Jobs start once all has happened that happens at this time, and before anybody asks.
            if self.noticed and not (self.events and self.events[0][:2] < (self.now, _CHECK)):
                self.noticed = False
                self.state += 1
                self.schedule()

    def hold(self, running: _Running, nodes: int) -> None:
        self.free -= nodes - running.held
        running.held = nodes
        self.holdings.append((self.now, running.number, nodes))

    def finish(self, running: _Running | None) -> None:
        if running is None or running.paused or running.end != self.now:
            return  # a change has moved the end since
        del self.running[running.number]
        self.hold(running, 0)
        self.end[running.number] = self.now
        self.noticed = True

    # Starting jobs

    def size_at_start(self, job: Job, free: int) -> int:
        """The most nodes on which the job can start now; 0 if it cannot."""
        if not self.moldable:
            return job.request if job.request <= free else 0
        return max((size for size in job.sizes if size <= free), default=0)

    def smallest_start(self, job: Job) -> int:
        return job.sizes[0] if self.moldable else job.request

    def begin(self, number: int, nodes: int) -> None:
        job = self.jobs[number]
        running = _Running(number, job, nodes, self.now, self.period)
        self.running[number] = running
        self.start[number] = self.now
        self.free -= nodes
        self.holdings.append((self.now, number, nodes))
        heapq.heappush(self.events, (running.end, _END, number))
        if self.malleable:
            heapq.heappush(self.events, (running.next_check, _CHECK, number))

    def schedule(self) -> None:
        while self.queue and (size := self.size_at_start(self.jobs[self.queue[0]], self.free)):
            self.begin(self.queue.pop(0), size)
            self.state += 1
        if not self.queue or not self.free:
            return
        shadow, spare = self.reservation(self.smallest_start(self.jobs[self.queue[0]]))
        for number in self.queue[1:]:
            job = self.jobs[number]
            if self.smallest_start(job) > self.free:
                continue
            size = self.size_at_start(job, self.free)
            if self.now + job.seconds(size) > shadow:
                size = self.size_at_start(job, min(self.free, spare))  # must leave the reserved nodes alone
                spare -= size
            if size:
                self.queue.remove(number)
                self.begin(number, size)
                self.state += 1
                if not self.free:
                    break

    def reservation(self, needed: int) -> tuple[float, int]:
        """When so many nodes will be free if nothing changes, and how many more there will be."""
        free = self.free
        releases = sorted(
            [(r.end, r.held - r.coming) for r in self.running.values()]
            + [(r.since, r.coming) for r in self.running.values() if r.coming]
        )
        for time, nodes in releases:
            free += nodes
            if free >= needed:
                return time, free - needed
        return float("inf"), 0

    # Changing jobs

    def check(self, running: _Running | None) -> None:
        """A malleable job asks whether it shall change."""
        if running is None or running.paused:
            return
        if running.seen != self.state:
            running.seen = self.state
            size = self.decide(running)
            if size != running.held:
                self.change(running, size)
                return
        running.next_check += self.period
        if running.next_check < running.end:
            heapq.heappush(self.events, (running.next_check, _CHECK, running.number))

    def change(self, running: _Running, size: int) -> None:
        """The job computes nothing while it changes, and holds the larger number of nodes."""
        rate = running.job.curve(running.held)
        running.left = max(running.left - rate * (self.now - running.since), 0.0)
        self.changes.append((self.now, running.number, running.held, size))
        done = self.now + self.cost(running.held, size)
        running.target, running.paused, running.since = size, True, done
        running.coming = max(running.held - size, 0)
        running.end = done + running.left / running.job.curve(size)
        if size > running.held:
            self.hold(running, size)
        heapq.heappush(self.events, (done, _CHANGED, running.number))
        self.state += 1

    def changed(self, running: _Running) -> None:
        running.paused, running.coming = False, 0
        if running.target < running.held:
            self.hold(running, running.target)
        running.next_check = self.now + self.period
        heapq.heappush(self.events, (running.end, _END, running.number))
        if running.next_check < running.end:
            heapq.heappush(self.events, (running.next_check, _CHECK, running.number))
        self.noticed = True

    def floor(self, running: _Running) -> int:
        """The smallest size to which others can make this job shrink."""
        preferred = running.job.preferred
        return running.job.sizes[0] if preferred is None else min(preferred, running.held)

    def decide(self, running: _Running) -> int:
        """The size that the policy gives a job which asks; its own for no change."""
        job, held = running.job, running.held
        if self.queue and (size := self.make_room(running)):
            return size
        # Whatever could start now has been started: no pending job can use the free nodes.
        limit = held + self.free
        if job.preferred is not None and self.queue:
            limit = min(limit, max(job.preferred, held))
        return max((size for size in job.sizes if held <= size <= limit), default=held)

    def make_room(self, running: _Running) -> int:
        """The job's size if it or others make room for a pending job, which then comes first; or 0."""
        held, floor = running.held, self.floor(running)
        everybody = self.running.values()
        coming = self.free + sum(other.coming for other in everybody)
        more = held - floor
        if self.joint:
            more = sum(other.held - self.floor(other) for other in everybody if not other.paused)
        for place, number in enumerate(self.queue):
            lacking = self.smallest_start(self.jobs[number]) - coming
            if lacking > more:
                continue
            if lacking > 0:
                self.queue.insert(0, self.queue.pop(place))
            elif coming == self.free:
                continue  # it does not start on them: they are reserved for another
            sizes = [size for size in running.job.sizes if floor <= size < held]
            if lacking <= 0 or not sizes:
                return held
            return max((size for size in sizes if held - size >= lacking), default=sizes[0])
        return 0


def simulate(
    jobs: Iterable[Job],
    nodes: int,
    *,
    moldable: bool = False,
    malleable: bool = False,
    cost: Cost = lambda before, after: 0.0,
    period: float = 60.0,
    joint: bool = True,
) -> Schedule:
    """Run all jobs to their end on a cluster of equal nodes.

    A malleable job asks every `period` seconds of its run whether it shall change. If a pending job can
    start because jobs shrink, this one shrinks, to the largest size that is enough or else to its smallest
    (its preferred size, if it has one), and the pending job becomes the first. Otherwise it grows into free
    nodes: to its preferred size while others wait, to its largest when nobody does or it prefers none. It
    computes nothing for `cost(before, after)` seconds, in which it holds the larger number of nodes.

    Args:
        jobs: in any order; the result keeps theirs.
        nodes: of the cluster.
        moldable: a job starts on the most nodes of its range that are free, instead of `request`.
        malleable: jobs change their size while they run.
        cost: seconds of a change from one number of nodes to another.
        period: seconds between two questions of a job.
        joint: what several jobs can give back counts together. Alone, a job that shrinks cannot make room
            for one of its own size unless some nodes are free.

    Two jobs of 8 nodes on a cluster of 8, one after the other:

    >>> twice = [Job(0.0, 80.0, amdahl(0.0), request=8, least=2, most=8)] * 2
    >>> simulate(twice, 8).end.tolist()
    [10.0, 20.0]

    Raises:
        ValueError: there is no job, a job can never start, or the period is not positive.
    """
    jobs = list(jobs)
    if not jobs:
        raise ValueError("there is no job to run")
    if not period > 0:
        raise ValueError(f"period is a positive number of seconds: got {period}")
    for number, job in enumerate(jobs):
        needed = job.sizes[0] if moldable else job.request
        if needed > nodes:
            raise ValueError(f"job {number} needs {needed} nodes to start, and the cluster has {nodes}")
    cluster = _Cluster(jobs, nodes, moldable, malleable, cost, period, joint)
    cluster.run()
    arrival = np.array([job.arrival for job in jobs])
    return Schedule(nodes, arrival, cluster.start, cluster.end, cluster.holdings, cluster.changes)
