"""Shell commands measured in a control group of their own: in a container, or on the host."""
import os, statistics, subprocess, threading
from dataclasses import dataclass

MIB = 1 << 20
# What a container may take, and what a group on the host may: the page cache fills whatever is allowed.
LIMIT = 4096 * MIB
V1 = "/sys/fs/cgroup/memory"
# The shell that runs the command prints when it began and ended, and waits until its group has been read.
WRAPPED = 'read a _ < /proc/uptime; {command} >/dev/null 2>{log}; code=$?; read b _ < /proc/uptime; echo "$code $a $b"; read -r _ || :'


@dataclass
class Figures:
    """What a command took: seconds, and megabytes of the whole group at its peak, with and without the page cache."""
    seconds: float
    peak: float
    anonymous: float


class Group:
    """A memory control group, of either version."""

    def __init__(self, name):
        self.path = os.path.join(V1 if os.path.isdir(V1) else "/sys/fs/cgroup", name)

    def read(self, *names):
        for name in names:
            path = os.path.join(self.path, name)
            if os.path.exists(path):
                with open(path) as f:
                    return f.read()
        raise FileNotFoundError(f"{self.path}: none of {', '.join(names)}")

    def peak(self):
        return int(self.read("memory.max_usage_in_bytes", "memory.peak")) / MIB

    def anonymous(self):
        fields = dict(line.split() for line in self.read("memory.stat").splitlines())
        return int(fields.get("total_rss", fields.get("anon"))) / MIB

    def make(self):
        os.makedirs(self.path)
        for name in ("memory.limit_in_bytes", "memory.max"):
            if os.path.exists(os.path.join(self.path, name)):
                with open(os.path.join(self.path, name), "w") as f:
                    f.write(str(LIMIT))

    def remove(self):
        os.rmdir(self.path)


def measured(process, group, log):
    """The figures of a wrapped command. `group` is called until it gives the group, which begins with the process."""
    most, over = [0.0], threading.Event()

    def sample():
        while not over.wait(0.01):
            try:
                most[0] = max(most[0], group().anonymous())
            except (OSError, IndexError, ValueError):
                # The group is not there yet, or not any more.
                pass

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        said = process.stdout.readline().split()
    finally:
        over.set()
        sampler.join()
    if len(said) != 3 or said[0] != "0":
        process.communicate()
        with open(log, errors="replace") as f:
            raise SystemExit(f"{process.args} failed, {said}:\n{f.read()[-2000:]}")
    figures = Figures(float(said[2]) - float(said[1]), group().peak(), most[0])
    process.communicate()
    return figures


def start(command, **more):
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **more)


def on_host(command, folder):
    """A shell command in a group of its own on the host; its standard error goes to a file in the folder."""
    group, log = Group(f"kiln-bench-{os.getpid()}"), os.path.join(folder, "log")
    group.make()
    try:
        enter = f"echo $$ > {group.path}/cgroup.procs; "
        return measured(start(["sh", "-c", enter + WRAPPED.format(command=command, log=log)]), lambda: group, log)
    finally:
        group.remove()


def in_docker(docker, image, shell, command, folder, flags=()):
    """A shell command in a new container, which has the folder as /kiln/workspace."""
    name, log = f"bench-{os.getpid()}", os.path.join(folder, "log")
    open(log, "w").close()
    container = [*docker.client, "run", "--rm", "-i", "--name", name, "--network", "host", "--pids-limit", "1000",
                 "--memory", str(LIMIT), "-v", f"{folder}:/kiln/workspace", *flags, "--entrypoint", shell, image, "-c",
                 WRAPPED.format(command=command, log="/kiln/workspace/log")]
    found = []

    def group():
        if not found:
            parent = Group(docker.group)
            # The only container of the daemon.
            found.extend(e.name for e in os.scandir(parent.path) if e.is_dir())
        return Group(os.path.join(docker.group, found[0]))

    return measured(start(container), group, log)


def medians(figures):
    return Figures(*(statistics.median(getattr(f, name) for f in figures) for name in ("seconds", "peak", "anonymous")))
