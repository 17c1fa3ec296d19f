"""The container file: what it names is there, and the server works as it would run in it: not root, without
capabilities, and under a seccomp filter that forbids io_uring as those of container engines do."""

import ctypes
import json
import os
import re
import shutil
import struct
import subprocess
import unittest

import server
from client import ask
from test_cli import forebay
from test_config import Folder

CORES = (2,)  # the image's server has as many as its machine
# linux/prctl.h, linux/seccomp.h, linux/filter.h
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
RET_ALLOW, RET_ERRNO, EPERM = 0x7FFF0000, 0x00050000, 1
LOAD_WORD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
# The same numbers on every architecture (asm-generic/unistd.h).
SYSCALLS = {"io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427}


def instructions():
    """The container file's lines as (name, rest), continued lines joined."""
    text = forebay("files", "Containerfile").stdout.decode()
    lines = re.sub(r"\\\n", " ", "\n".join(line for line in text.splitlines() if not line.startswith("#")))
    return [tuple(line.split(None, 1)) for line in lines.splitlines() if line.strip()]


def forbid(names):
    """Answers these system calls with EPERM from here on, as an engine's profile does."""
    jumps = [(JUMP_IF_EQUAL, len(names) - at, 0, SYSCALLS[name]) for at, name in enumerate(names)]
    program = [(LOAD_WORD, 0, 0, 0), *jumps, (RETURN, 0, 0, RET_ALLOW), (RETURN, 0, 0, RET_ERRNO | EPERM)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in program))
    filters = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code)))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filters, 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")


class Contained(server.Process):
    """The server as its container starts it, but for the file system."""

    def __init__(self, binary, uid, environment, forbidden):
        plain = {"PATH": os.environ["PATH"], **environment}
        user = [] if uid is None else ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups",
                                       "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
        popen = subprocess.Popen
        subprocess.Popen = lambda *a, **k: popen(*a, **{**k, "env": plain, "preexec_fn": lambda: forbid(list(forbidden))})
        try:
            super().__init__([*user, binary, "serve"])
        finally:
            subprocess.Popen = popen


class Container(Folder):
    def environment(self):
        """What the last image of the file sets."""
        told = " ".join(rest for name, rest in instructions() if name == "ENV")
        return dict(pair.split("=", 1) for pair in told.split())

    def test_every_file_that_is_named_is_there(self):
        told = instructions()
        by_name = lambda wanted: [rest for name, rest in told if name == wanted]
        self.assertLessEqual({name for name, _ in told}, {"FROM", "WORKDIR", "COPY", "RUN", "USER", "ENV", "EXPOSE",
                                                          "STOPSIGNAL", "ENTRYPOINT", "CMD"})
        manifest = open(os.path.join(server.ROOT, "Cargo.toml"), encoding="utf-8").read()
        rust = re.search(r'^rust-version = "([\d.]+)"', manifest, re.MULTILINE).group(1)
        build, run = by_name("FROM")
        self.assertEqual(build, f"rust:{rust}-slim-bookworm AS build")
        # What is linked is what is there when it runs.
        self.assertIn("bookworm", run)
        self.assertTrue(os.path.exists(os.path.join(server.ROOT, "Cargo.lock")), "--locked needs it")
        [cargo] = [part.split() for part in by_name("RUN")[0].split("&&") if "cargo" in part]
        self.assertEqual(cargo, ["cargo", "build", "--release", "--locked", "--bin", "forebay"])
        copied = [part for rest in by_name("COPY") if not rest.startswith("--from") for part in rest.split()[:-1]]
        for part in copied:
            self.assertTrue(os.path.exists(os.path.join(server.ROOT, part)), part)
        members = re.search(r"^members = (\[.*\])", manifest, re.MULTILINE).group(1)
        needed = {member.split("/")[0] for member in json.loads(members)} - {"."}
        needed |= {path.split("/")[0] for path in re.findall(r'^path = "(.*)"', manifest, re.MULTILINE)}
        self.assertLessEqual(needed | {"Cargo.toml", "Cargo.lock", "src"}, set(copied))
        self.assertIn("--from=build /src/target/release/forebay /usr/local/bin/forebay", by_name("COPY"))
        authorities = "/etc/ssl/certs/ca-certificates.crt"
        self.assertIn(f"--from=build {authorities} {authorities}", by_name("COPY"))
        self.assertIn("ca-certificates", by_name("RUN")[0].split(), "who builds has what is copied")
        self.assertEqual(json.loads(by_name("ENTRYPOINT")[0]), ["/usr/local/bin/forebay"])
        self.assertEqual(json.loads(by_name("CMD")[0]), ["serve"])
        # By numbers: an orchestrator that wants no root can't look names up.
        uid, gid = by_name("USER")[0].split(":")
        self.assertTrue(int(uid) > 0 and int(gid) > 0)
        environment = self.environment()
        self.assertIn(f"install -d -o {uid} -g {gid} -m 0700 {environment['XDG_CACHE_HOME']}/forebay", by_name("RUN")[1])
        self.assertEqual(by_name("EXPOSE"), [environment["FOREBAY_LISTEN"].rpartition(":")[2]])
        self.assertEqual(by_name("STOPSIGNAL"), ["SIGTERM"])
        # Every variable is a setting's, or the server would not start.
        names = {name for name in environment if name.startswith("FOREBAY_")}
        known = json.loads(forebay("config", "--format", "json").stdout)
        self.assertLessEqual(names, {"FOREBAY_" + re.sub("^server[.]", "", name).replace(".", "_").upper() for name in known})

    def test_the_profiles_entry_names_what_is_forbidden(self):
        entry = json.loads(forebay("files", "seccomp-io_uring.json").stdout)
        self.assertEqual((set(entry["names"]), entry["action"]), (set(SYSCALLS), "SCMP_ACT_ALLOW"))

    def serve(self, uid, forbidden):
        """The server with the image's variables, on a port of its own; another user has a cache of its own."""
        environment = {**self.environment(), "FOREBAY_LISTEN": "127.0.0.1:0", "FOREBAY_LOG_FORMAT": "human"}
        made = forebay("key", "new", "--name", "a", "--scopes", "crawl,metrics,extract")
        environment["FOREBAY_AUTH_KEYS_FILE"] = self.path("keys.toml", made.stdout.decode())
        binary = server.FOREBAY
        if uid is None:
            # What it compiles is the same: the other tests' cache may have it.
            del environment["XDG_CACHE_HOME"]
            environment |= {name: os.environ[name] for name in ("HOME", "XDG_CACHE_HOME") if name in os.environ}
        else:
            cache = self.path("cache")
            os.makedirs(os.path.join(cache, "forebay"), mode=0o700)
            environment["XDG_CACHE_HOME"] = cache
            # Whoever it is may have no way to where the binary was built.
            binary = self.path("forebay")
            shutil.copy(server.FOREBAY, binary)
            os.chmod(self.folder, 0o755)
            for path in (cache, os.path.join(cache, "forebay"), environment["FOREBAY_AUTH_KEYS_FILE"]):
                os.chown(path, uid, uid)
        running = Contained(binary, uid, environment, forbidden)
        self.addCleanup(running.kill)
        server.Server.wait_ready(running)
        self.key = [f"X-API-Key: {made.stderr.decode().strip()}"]
        return running

    def works(self, running):
        page = "<title>t</title><article><h1>Weir</h1><p>" + "water and snow " * 40
        done = ask(running, "POST", "/extract", {"html": page}, self.key)
        self.assertEqual(done.status, 200, done)
        self.assertEqual(ask(running, "POST", "/extract", {"html": page}).status, 401)

    def test_without_io_uring_it_runs_on_epoll_and_says_so(self):
        running = self.serve(None, forbidden=SYSCALLS)
        self.works(running)
        self.assertRegex(running.output(), "epoll")
        self.assertRegex(running.output(), "seccomp|EPERM|not permitted|forbid")
        self.assertEqual(running.stop(), 0)

    @unittest.skipUnless(os.geteuid() == 0 and shutil.which("setpriv"), "needs root and setpriv to become somebody else")
    def test_it_runs_as_the_images_user_without_any_capability(self):
        uid = int(dict(instructions())["USER"].split(":")[0])
        running = self.serve(uid, forbidden=SYSCALLS)
        self.works(running)
        with open(f"/proc/{running.child.pid}/status", encoding="ascii") as status:
            told = dict(line.rstrip("\n").split(":\t", 1) for line in status if ":\t" in line)
        self.assertEqual(set(told["Uid"].split()), {str(uid)})
        self.assertEqual({told[name] for name in ("CapEff", "CapPrm", "CapBnd")}, {"0" * 16})
        self.assertEqual((told["NoNewPrivs"], told["Seccomp"]), ("1", "2"))
        self.assertTrue(os.listdir(self.path("cache/forebay")), "the compiled extractor was kept")
        self.assertEqual(running.stop(), 0)


if __name__ == "__main__":
    unittest.main()
