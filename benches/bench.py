"""Workloads for kiln and Debian's buildah, side by side on one machine. Run by hand, as root, on a quiet machine.

Time is the wall's; memory is the largest process's peak.
Environment: RUNS (times each, default as the workload says), BUILDERS (default "kiln buildah"), KILN (default target/kiln),
TMPDIR (contexts and stores, default /var/tmp), REGISTRY (the registry's folder, default in TMPDIR).
"""
import json, os, shutil, statistics, subprocess, sys, tempfile, time

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
KILN = os.environ.get("KILN", os.path.join(ROOT, "target/kiln"))


def script(name, *args, **kw):
    return subprocess.run([os.path.join(ROOT, "scripts", name), *args], check=True, stdout=subprocess.PIPE, text=True, **kw).stdout


class Place:
    """A registry with bases and an empty folder for each builder's store, all gone at the end."""

    def __enter__(self):
        self.folder = tempfile.mkdtemp(prefix="kiln-bench-", dir=os.environ.get("TMPDIR", "/var/tmp"))
        self.registry = tempfile.mkdtemp(prefix="kiln-bench-registry-", dir=os.environ.get("REGISTRY", self.folder))
        self.address = "127.0.0.1:" + script("free-port").strip()
        os.environ.update(REGISTRY_ADDR=self.address, REGISTRY_DIR=self.registry,
                          BASES_CACHE=os.path.join(ROOT, "target/bases"))
        # Its server outlives the script and must not hold our pipe.
        subprocess.run([os.path.join(ROOT, "scripts/registry"), "start"], check=True, stdout=subprocess.DEVNULL)
        script("make-bases")
        with open(self.path("registries.conf"), "w") as f:
            f.write(f'[[registry]]\nprefix = "docker.io"\nlocation = "{self.address}"\ninsecure = true\n'
                    f'[[registry]]\nlocation = "{self.address}"\ninsecure = true\n')
        with open(self.path("policy.json"), "w") as f:
            json.dump({"default": [{"type": "insecureAcceptAnything"}]}, f)
        return self

    def __exit__(self, *_):
        script("registry", "stop")
        shutil.rmtree(self.registry, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.folder, name)

    def builders(self):
        known = {"kiln": Kiln, "buildah": Buildah}
        wanted = os.environ.get("BUILDERS", "kiln buildah").split()
        for name in wanted:
            if not (os.path.exists(KILN) if name == "kiln" else shutil.which(name)):
                print(f"{name}: not here; left out")
        return [known[n](self) for n in wanted if n == "kiln" and os.path.exists(KILN) or n != "kiln" and shutil.which(n)]


class Builder:
    """A builder with a store that can be exchanged for an empty one."""

    def __init__(self, place):
        self.place, self.stores = place, 0

    def store(self):
        return self.place.path(f"{self.name}-{self.stores}")

    def reset(self):
        """An empty store. The old one stays until all is over: where many files were just removed, some file systems
        (ext4 without a journal) are ten times as slow to make new ones, and that isn't what is measured."""
        self.stores += 1


class Kiln(Builder):
    name = "kiln"

    def command(self, context, image, jobs=None, cache_to=None, cache_from=None):
        mirror = "docker.io=http://" + self.place.address
        # It finds out by itself how many steps there may be at once.
        flags = ["--cache-to", f"type=registry,ref={cache_to},mode=max"] if cache_to else []
        flags += ["--cache-from", f"type=registry,ref={cache_from}"] if cache_from else []
        return [[KILN, "--root", self.store(), "build", "--progress", "plain", "--registry-mirror", mirror,
                 "--network", "host", "-t", image, "--push", *flags, context]]


class Buildah(Builder):
    """At its fastest that works in most places: overlay, chroot isolation, a layer for each step as kiln has."""
    name = "buildah"

    def __init__(self, place):
        super().__init__(place)
        os.environ["CONTAINERS_REGISTRIES_CONF"] = place.path("registries.conf")

    def command(self, context, image, jobs=None, cache_to=None, cache_from=None):
        flags = ["--jobs", str(jobs)] if jobs else []
        flags += ["--cache-to", cache_to] if cache_to else []
        flags += ["--cache-from", cache_from] if cache_from else []
        base = ["buildah", "--root", self.store(), "--runroot", self.store() + "-run", "--storage-driver", "overlay",
                "--signature-policy", self.place.path("policy.json")]
        return [base + ["bud", "--layers", "--isolation", "chroot", "--network", "host", "--tls-verify=false", *flags,
                             "-t", image, context],
                base + ["push", "--tls-verify=false", image]]


def measured(commands, log):
    """Seconds of all commands together, and the largest process's peak in MB."""
    peak, begin = 0, time.monotonic()
    for command in commands:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            log.seek(0)
            sys.exit(f"{command[0]} failed:\n" + log.read().decode("utf-8", "replace")[-2000:])
        peak = max(peak, usage.ru_maxrss / 1024)
    return time.monotonic() - begin, peak


def compare(title, runs, prepare):
    """Builds the context that `prepare` makes in a folder with each builder and prints a table."""
    runs = int(os.environ.get("RUNS", runs))
    with Place() as place:
        context = place.path("context")
        os.mkdir(context)
        prepare(context)
        print(f"{title}; {runs} cold runs each, pushed\n")
        print("| builder | median s | min s | peak MB |\n|---|---|---|---|")
        for builder in place.builders():
            taken = []
            for n in range(runs):
                builder.reset()
                os.sync()
                with open(place.path("log"), "w+b") as log:
                    taken.append(measured(builder.command(context, f"{place.address}/{builder.name}-{n}:1"), log))
            seconds = [t for t, _ in taken]
            print(f"| {builder.name} | {statistics.median(seconds):.2f} | {min(seconds):.2f} | {max(p for _, p in taken):.0f} |",
                  flush=True)
        print()


def dockerfile(context, text):
    with open(os.path.join(context, "Dockerfile"), "w") as f:
        f.write(text)
