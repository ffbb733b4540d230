"""Runs the jobs of a study: some at a time, each in its own process of one thread.

A job that dies is reported and those that need it are left out; everything else goes on. Starting
the same study again repeats nothing that is finished and resumes what was under way.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from himac_agents.config.setting import MOST_MINUTES, check_limits
from himac_agents.experiments.study import work
from himac_agents.experiments.study.plan import Job
from himac_agents.files import write_atomically

#: One thread a job: CPU seconds of different methods then mean the same.
_THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass
class Driver:
    """See the module's text.

    Attributes:
        jobs: What is to be done; an earlier job goes first.
        out: The study's folder: `warm/`, `runs/`, `jobs/` (settings and logs).
        workers: Processes at a time.
        report: Called with a line of progress.
        finished: Called after each job that ran and ended well, by one thread at a time: not for
            one that was done before. What it raises is reported, once for each reason; the job
            counts as done.
        done: Called for each job that is done, now or before, by one thread at a time.
        minutes: After so many the running jobs are asked to leave, with a checkpoint, and no other
            begins; 0: no bound.
        grace: Seconds that a job may then take, until it is ended.
        out_of_time: Whether it came to that: not everything is done.
    """

    jobs: Sequence[Job]
    out: Path
    workers: int = 2
    report: Callable[[str], None] = print
    finished: Callable[[Job], None] = lambda job: None
    done: Callable[[Job], None] = lambda job: None
    minutes: float = 0.0
    grace: float = 60.0
    out_of_time: bool = False
    failed: dict[str, str] = field(default_factory=dict)
    _done: set[str] = field(default_factory=set)
    _taken: set[str] = field(default_factory=set)
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _told: set[str] = field(default_factory=set)
    _stopped: bool = False

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"jobs={self.workers}: at least one at a time")
        check_limits("minutes", self.minutes, least=0, most=MOST_MINUTES)
        self._change = threading.Condition()

    def run(self) -> dict[str, str]:
        """Runs every job.

        Returns:
            The jobs that failed or were left out, by name, with the reason.

        Raises:
            BlockingIOError: Another process runs a study in the same folder.
            KeyboardInterrupt: After the running jobs were ended.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.out / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise BlockingIOError(f"another process runs a study in {self.out}") from error
        timer = threading.Timer(60.0 * self.minutes, self.leave)
        timer.daemon = True
        try:
            # Futures: a thread counts as ended as soon as somebody's `join` is interrupted.
            with ThreadPoolExecutor(self.workers, "study") as pool:
                working = [pool.submit(self._work) for _ in range(self.workers)]
                if self.minutes:
                    timer.start()
                try:
                    for each in wait(working, return_when=FIRST_EXCEPTION).done:
                        each.result()
                except BaseException:
                    self.leave()
                    raise
                finally:
                    timer.cancel()
            names = {job.name for job in self.jobs}
            self.out_of_time = self._stopped and not names <= {*self._done, *self.failed}
        finally:
            lock.release()
        return self.failed

    def _work(self) -> None:
        while (job := self._next()) is not None:
            began = time.monotonic()
            ran = False
            try:
                ran = not work.done(job.kind, job.config, job.folder(self.out))
                status = self._execute(job) if ran else 0
                why = "" if status == 0 else _reason(status, self._log(job))
            except Exception as error:  # whatever it is, the other jobs go on
                why = f"{type(error).__name__}: {error}"
            told = self._finish(job) if ran and not why else ""
            with self._change:
                if not why:
                    self._done.add(job.name)
                    self.done(job)
                elif not self._stopped:
                    self.failed[job.name] = why
                self._change.notify_all()
            if not self._stopped:
                took = f"{time.monotonic() - began:.0f} s"
                self.report(f"{job.name}: {why or 'done'} ({took})")
            if told:
                self.report(told)

    def _finish(self, job: Job) -> str:
        """Tells of a job that ended well; what is new to say of why that failed."""
        with self._change:
            try:
                self.finished(job)
            except Exception as error:  # what was computed is there all the same
                why = str(error) or repr(error)
                if why not in self._told:
                    self._told.add(why)
                    return f"what is done cannot be published: {why}"
        return ""

    def _next(self) -> Job | None:
        """The first job whose warm start is there; waits while only others' results are missing."""
        with self._change:
            while not self._stopped:
                waiting = False
                for job in self.jobs:
                    if job.name in self._taken:
                        continue
                    if not job.needs or job.needs in self._done:
                        self._taken.add(job.name)
                        return job
                    known = any(other.name == job.needs for other in self.jobs)
                    if job.needs in self.failed or not known:
                        self._taken.add(job.name)
                        self.failed[job.name] = f"left out: {job.needs} failed"
                        self.report(f"{job.name}: {self.failed[job.name]}")
                        continue
                    waiting = True
                if not waiting:
                    return None
                self._change.wait()
            return None

    def _execute(self, job: Job) -> int:
        settings = self.out / "jobs" / f"{job.name.replace('/', '-')}.toml"
        settings.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(settings, job.config.to_toml())
        command = [sys.executable, "-m", "himac_agents.experiments.study.work", job.kind]
        command += [str(job.folder(self.out)), str(settings)]
        if job.needs:
            command.append(str(self.out / job.needs))
        # A job is to run the same code as this process.
        path = os.pathsep.join(filter(None, sys.path))
        with self._log(job).open("ab") as log:
            with self._change:
                if self._stopped:
                    return 1
                process = subprocess.Popen(
                    command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                    env={**os.environ, **_THREADS, "PYTHONPATH": path},
                )  # fmt: skip
                self._running[job.name] = process
            status = process.wait()
        with self._change:
            del self._running[job.name]
        return status

    def _log(self, job: Job) -> Path:
        return self.out / "jobs" / f"{job.name.replace('/', '-')}.log"

    def leave(self) -> None:
        """Begins no other job, asks the running ones to leave, and ends those that do not."""
        with self._change:
            self._stopped = True
            running = list(self._running.values())
            for process in running:
                process.terminate()
            self._change.notify_all()
        over = time.monotonic() + self.grace
        try:
            for process in running:
                process.wait(max(0.0, over - time.monotonic()))
        except subprocess.TimeoutExpired:
            pass
        finally:  # at once where a second Ctrl-C comes while it waits
            for process in running:
                process.kill()


def _reason(status: int, log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = lines[-1] if lines else "it wrote nothing"
    how = f"ended by signal {-status}" if status < 0 else f"failed with status {status}"
    return f"{how}: {last} (log: {log})"
