"""Settings: what the binary prints of them, what it says of mistakes, and reading them again while
streams run."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import tomllib
import unittest

import schemas
import server
from client import Connection, ask, request
from test_cli import forebay


class Folder(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)

    def path(self, name, text=None):
        path = os.path.join(self.folder, name)
        if text is not None:
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        return path


class Printing(Folder):
    CORES = (2,)  # a command

    def config(self, *arguments, **environment):
        done = subprocess.run([server.FOREBAY, "config", *arguments], capture_output=True, check=False, timeout=60,
                              env={**os.environ, **environment})
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        return done.stdout.decode()

    def test_each_value_says_where_it_came_from(self):
        file = self.path("f.toml", '[stream]\nurls_max = 7\n\n[egress]\nproxy = "http://u:S3CRET@127.0.0.1:1"\n')
        given = ["--config", file, "--cores", "2"]
        told = json.loads(self.config("--format", "json", *given, FOREBAY_BUFFER_BYTES_MAX="70000"))
        for name, value, source in (("stream.urls_max", "7", f"{file}:2"), ("server.cores", "2", "--cores"),
                                    ("buffer.bytes_max", "70000", "FOREBAY_BUFFER_BYTES_MAX"),
                                    ("egress.proxy", "***", f"{file}:5"), ("server.listen", "127.0.0.1:8080", "default")):
            self.assertEqual((told[name]["value"], told[name]["source"]), (value, source), name)
        for form in ("table", "json", "toml"):
            self.assertNotIn("S3CRET", self.config("--format", form, *given))
        self.assertNotIn(b"S3CRET", forebay("check", *given).stdout)

    def test_what_is_printed_can_be_read_again(self):
        file = self.path("f.toml", '[server]\ncores = 2\ntrusted_proxies = ["10.0.0.1", "10.1.0.0/16"]\n[log]\nformat = "json"\n')
        again = self.path("again.toml", self.config("--format", "toml", "--config", file))
        values = lambda path: {name: entry["value"] for name, entry in
                               json.loads(self.config("--format", "json", "--config", path)).items()}
        self.assertEqual(values(again), values(file))

    def test_the_default_file_has_every_setting(self):
        text = self.config("--default")
        self.assertEqual(set(name for section in tomllib.loads(text).values() for name in section), set())
        opened = "\n".join(line[1:] if line.startswith("#") and not line.startswith("# ") else line
                           for line in text.splitlines())
        names = {f"{section}.{key}" for section, keys in tomllib.loads(opened).items() for key in keys}
        self.assertEqual(names, set(json.loads(self.config("--format", "json"))))
        self.assertEqual(forebay("config", "--config", self.path("open.toml", opened)).returncode, 0)


class Mistakes(Folder):
    CORES = (2,)  # nothing starts

    def test_all_are_told_at_once_with_their_places(self):
        file = self.path("f.toml", "[stream]\nurl_max = 7\nheartbeat_ms = 1\n\n[tls]\ncert = [1]\n[server]\nruntime = 'uring'\n")
        environment = {**os.environ, "FOREBAY_CORE": "2", "FOREBAY_BUFFER_BYTES_MAX": "many"}
        done = subprocess.run([server.FOREBAY, "serve", "--config", file, "--ws-deflate", "maybe"], env=environment,
                              capture_output=True, check=False, timeout=60)
        self.assertEqual(done.returncode, 2)
        lines = done.stderr.decode().splitlines()
        for signs in ((f"{file}:2", "stream.url_max", "did you mean stream.urls_max?"),
                      (f"{file}:3", "10 to 300000", "found 1"), (f"{file}:8", "auto, io_uring or epoll", '"uring"'),
                      ("FOREBAY_CORE", "did you mean FOREBAY_CORES?"),
                      ("FOREBAY_BUFFER_BYTES_MAX", "a whole number", '"many"'),
                      ("--ws-deflate", "off, message or takeover", '"maybe"')):
            self.assertTrue(any(all(sign in line for sign in signs) for line in lines), f"{signs} in {lines}")

    # What only shows where a setting is used, a line each; with it the sign of its mistake.
    IN_USE = (('egress.allow = ["10.0.0.0/8", "10.0.0.0/99"]', "10.0.0.0/99"), ('egress.proxy = "ftp://u:S3CRET@proxy"', "socks5://"),
              ('server.trusted_proxies = ["proxy.example"]', "no network"), ('cors.origins = ["https://a.example", "b"]', '"b"'),
              ('tls.cert = "/none/cert.pem"', "go together"), ('redis.url = "redis://u:S3CRET@a:x"', "host:port"),
              ('otlp.endpoint = "collector:4318"', "http"), ('otlp.headers = "S3CRET"', "name=value"), ('search.url = "nowhere"', ""),
              ('audit.file = "/none/audit.jsonl"', "/none/audit.jsonl"), ('fetch.user_agent = "a\\u0001b"', ""),
              ('extract.module = "/none/module.wasm"', "/none/module.wasm"), ('stream.replay_bytes_max = 1_073_741_824', ""),
              ('stream.bytes_max = 1_048_576', "1048576"), ('stream.heartbeat_ms = 1', "10 to 300000"))

    def in_use(self):
        lines = Mistakes.IN_USE
        file = self.path("f.toml", "".join(line + "\n" for line, _ in lines))
        names = [line.partition(" ")[0] for line, _ in lines]
        # The fourteenth is told with the thirteenth, which it clashes with.
        return file, [(f"{file}:{at + 1}: {name}: ", sign) for at, (name, (_, sign)) in enumerate(zip(names, lines)) if at != 13]

    def holds(self, told, expected):
        for start, sign in expected:
            self.assertTrue(any(line.startswith(start) and sign in line for line in told), f"{start} … {sign} in {told}")
        self.assertEqual(len(told), len(expected), told)
        self.assertNotIn("S3CRET", str(told))

    def test_what_shows_only_in_use_is_told_with_the_rest(self):
        file, expected = self.in_use()
        for command in ("serve", "check"):
            done = forebay(command, "--config", file)
            self.assertEqual(done.returncode, 2)
            self.assertEqual(done.stdout, b"")
            self.holds([line.removeprefix("forebay: ") for line in done.stderr.decode().splitlines()], expected)

    def test_settings_are_checked_where_they_came_from(self):
        file = self.path("f.toml", "[stream]\nbytes_max = 1_048_576\n")
        environment = {**os.environ, "FOREBAY_EGRESS_DENY": "a b"}
        done = subprocess.run([server.FOREBAY, "serve", "--config", file, "--tls-key", "/none/key", "--listen", "0.0.0.0:0"],
                              env=environment, capture_output=True, check=False, timeout=60)
        self.assertEqual(done.returncode, 2)
        told = done.stderr.decode().splitlines()
        for start in ("FOREBAY_EGRESS_DENY: egress.deny: ", "--tls-key: tls.key: ", "--listen: server.listen: 0.0.0.0:0 is not a loopback",
                      f"{file}:2: stream.bytes_max: "):
            self.assertTrue(any(line.startswith("forebay: " + start) for line in told), f"{start} in {told}")
        self.assertEqual(len(told), 4, told)

    def test_a_module_that_is_no_extractor_is_told_by_a_check_and_a_start(self):
        module = self.path("m.wasm")
        with open(module, "wb") as file:
            file.write(b"\0asm\x01\0\0\0")  # a module, and an empty one
        file = self.path("f.toml", f'[extract]\nmodule = "{module}"\n')
        for command in (["check"], ["serve", "--listen", "127.0.0.1:0"]):
            done = forebay(*command, "--config", file)
            self.assertEqual(done.returncode, 2)
            told = done.stderr.decode().splitlines()[-1]
            self.assertTrue(told.startswith(f"forebay: {file}:2: extract.module: ") and "export" in told, told)

    def test_a_check_makes_nothing(self):
        audit, index = self.path("audit.jsonl"), self.path("index")
        self.assertEqual(forebay("check", "--audit-file", audit, "--search-index-dir", index).returncode, 0)
        self.assertEqual(os.listdir(self.folder), [])

    def test_the_environment_of_a_container_is_no_mistake(self):
        file = self.path("f.toml", "[stream]\nurls_max = 7\n")
        kubernetes = {"FOREBAY_SERVICE_HOST": "10.0.171.239", "FOREBAY_SERVICE_PORT": "8080", "FOREBAY_PORT": "tcp://10.0.171.239:8080",
                      "FOREBAY_PORT_8080_TCP": "tcp://10.0.171.239:8080", "FOREBAY_PORT_8080_TCP_ADDR": "10.0.171.239"}
        plain = {os.fsencode(name): os.fsencode(value) for name, value in {**os.environ, **kubernetes}.items()}
        environment = {**plain, b"FOREBAY_CONFIG": os.fsencode(file), b"OTHER": b"\xff", b"\xfe": b"1"}
        config = lambda more, *flags: subprocess.run([server.FOREBAY, "config", "--format", "json", *flags], env={**environment, **more},
                                                     capture_output=True, check=False, timeout=60)
        done = config({})
        self.assertEqual(done.returncode, 0, done.stderr)
        told = json.loads(done.stdout)["stream.urls_max"]
        self.assertEqual((told["value"], told["source"]), ("7", f"{file}:2"))
        for name in kubernetes:
            self.assertIn(f"{name} looks like what Kubernetes says", done.stderr.decode())
        other = self.path("g.toml", "[stream]\nurls_max = 8\n")
        self.assertEqual(json.loads(config({}, "--config", other).stdout)["stream.urls_max"]["value"], "8")
        done = config({b"FOREBAY_PORT": b"8080"})
        self.assertEqual((done.returncode, b"FOREBAY_PORT: no setting" in done.stderr), (2, True), done.stderr)
        done = config({b"FOREBAY_TLS_CERT": b"/a\xff"})
        self.assertEqual((done.returncode, done.stderr), (2, b"forebay: FOREBAY_TLS_CERT: expected text in UTF-8\n"))
        done = config({b"FOREBAY_CONFIG": b"/none/f.toml"})
        self.assertEqual(done.returncode, 2)
        self.assertIn(b"FOREBAY_CONFIG: /none/f.toml", done.stderr)

    def test_a_file_that_is_no_toml_and_one_that_is_not_there(self):
        for path, sign in ((self.path("bad.toml", "[stream\n"), "bad.toml:1"), ("/none/f.toml", "/none/f.toml")):
            done = forebay("check", "--config", path)
            self.assertEqual(done.returncode, 2)
            self.assertIn(sign, done.stderr.decode())


class Reload(Folder):
    def start(self, text, *flags):
        self.file = self.path("f.toml", text)
        running = server.Server("--config", self.file, *flags)
        self.addCleanup(running.stop)
        return running

    def crawl(self, running, count):
        return ask(running, "POST", "/crawl", {"urls": [f"http://10.0.0.{n}/" for n in range(count)]})

    def reload(self, running, status=200):
        response = ask(running, "POST", "/admin/reload")
        self.assertEqual(response.status, status, response)
        name = "Reloaded" if status == 200 else "NotReloaded"
        self.assertEqual(schemas.wrong(name, response.json()), [])
        return response.json()

    def test_what_can_change_changes_and_what_cannot_is_named(self):
        running = self.start("[stream]\nurls_max = 3\n")
        self.assertEqual(self.crawl(running, 4).status, 400)
        self.path("f.toml", "[stream]\nurls_max = 5\n[cache]\nttl_s = 1\n[log]\nlevel = 'debug'\n")
        told = self.reload(running)
        changed = {change["setting"]: (change["from"], change["to"]) for change in told["changed"]}
        self.assertEqual(changed, {"stream.urls_max": ("3", "5"), "log.level": ("info", "debug")})
        self.assertEqual([change["setting"] for change in told["needs_restart"]], ["cache.ttl_s"])
        self.assertEqual(self.crawl(running, 4).status, 200)
        self.assertEqual(self.crawl(running, 6).status, 400)
        self.assertTrue(server.wait_until(lambda: "needs a restart" in running.output()))
        self.assertIn("stream.urls_max", running.output())

    def test_jobs_take_what_can_change_as_streams_do(self):
        running = self.start("[jobs]\nurls_max = 2\nretention_s = 60\nkept_max = 2\nbytes_max = 70_000\n")

        def job(count):
            answer = ask(running, "POST", "/jobs", {"urls": [f"http://10.0.0.{n}/" for n in range(count)]})
            return answer.status, answer.json()

        self.assertEqual(job(3)[0], 400)
        self.assertEqual([job(1)[0] for _ in range(3)], [202, 202, 503])
        new = {"urls_max": "3", "retention_s": "1", "kept_max": "4", "concurrency": "3", "takeover_s": "9", "deadline_s": "100"}
        self.path("f.toml", "[jobs]\nbytes_max = 70_000\n" + "".join(f"{name} = {value}\n" for name, value in new.items()))
        told = self.reload(running)
        named = lambda key: {change["setting"]: change["to"] for change in told[key]}
        self.assertEqual(named("changed"), {f"jobs.{name}": new[name] for name in ("urls_max", "retention_s", "kept_max")})
        self.assertEqual(named("needs_restart"), {f"jobs.{name}": new[name] for name in ("concurrency", "takeover_s", "deadline_s")})
        status, made = job(3)
        self.assertEqual(status, 202)
        # What began before goes by what it began with: it is kept, and the new one is gone in a second.
        state = lambda: ask(running, "GET", f"/jobs/{made['job_id']}").status
        self.assertTrue(server.wait_until(lambda: state() == 404, 20))
        self.assertEqual(len(ask(running, "GET", "/jobs").json()["jobs"]), 2)
        self.assertEqual([job(1)[0] for _ in range(3)], [202, 202, 503])

    def test_a_mistake_changes_nothing(self):
        running = self.start("[stream]\nurls_max = 3\n")
        self.path("f.toml", "[stream]\nurls_max = 5\nheartbeat_ms = 1\nurl = 7\n")
        told = self.reload(running, 422)
        self.assertFalse(told["reloaded"])
        self.assertEqual(len(told["problems"]), 2)
        self.assertIn(f"{self.file}:3", told["problems"][0] + told["problems"][1])
        self.assertEqual(self.crawl(running, 4).status, 400)
        os.remove(self.file)
        self.assertFalse(self.reload(running, 422)["reloaded"])

    def test_all_that_would_keep_it_from_starting_is_told(self):
        running = self.start("[stream]\nurls_max = 3\n")
        _, expected = Mistakes.in_use(self)
        # The first line is not in force: the test's server has a flag that wins.
        Mistakes.holds(self, self.reload(running, 422)["problems"], expected[1:])
        self.assertEqual(self.crawl(running, 4).status, 400)
        self.path("f.toml", "[stream]\nurls_max = 5\n")
        self.assertEqual(len(self.reload(running)["changed"]), 1)

    def test_sighup_does_the_same_and_streams_go_on(self):
        _, origin = server.shared()
        running = self.start("[stream]\nurls_max = 3\n")
        with Connection(running.address) as connection:
            urls = [origin.page(n, latency="300ms") for n in range(3)]
            connection.send(request("POST", "/crawl/stream", {"urls": urls, "options": {"concurrency": 1}}))
            lines = connection.read_lines(connection.read_head())
            next(lines)
            self.path("f.toml", "[stream]\nurls_max = 4\n")
            running.child.send_signal(signal.SIGHUP)
            self.assertTrue(server.wait_until(lambda: self.crawl(running, 4).status == 200))
            rest = [json.loads(line) for line in lines]
        self.assertEqual((rest[-1]["type"], rest[-1]["successful"]), ("summary", 3))

    def test_flags_and_variables_still_win(self):
        running = self.start("[stream]\nurls_max = 3\n", "--stream-urls-max", "6")
        self.path("f.toml", "[stream]\nurls_max = 1\n")
        self.assertEqual(self.reload(running)["changed"], [])
        self.assertEqual(self.crawl(running, 6).status, 200)

    def test_only_an_admin_may(self):
        made = forebay("key", "new", "--name", "a", "--scopes", "admin")
        other = forebay("key", "new", "--name", "b", "--scopes", "crawl,metrics")
        keys = self.path("keys.toml", made.stdout.decode() + other.stdout.decode())
        running = self.start("", "--auth-keys-file", keys)
        status = lambda key: ask(running, "POST", "/admin/reload", fields=[f"X-API-Key: {key}"] if key else []).status
        self.assertEqual(status(None), 401)
        self.assertEqual(status(other.stderr.decode().strip()), 403)
        self.assertEqual(status(made.stderr.decode().strip()), 200)
        with_key = [f"X-API-Key: {made.stderr.decode().strip()}"]
        self.assertEqual(ask(running, "GET", "/admin/reload", fields=with_key).status, 405)
        self.path("keys.toml", made.stdout.decode() + "[[key]]\nname = broken")
        refused = ask(running, "POST", "/admin/reload", fields=with_key)
        self.assertEqual(refused.status, 422)
        self.assertIn("keys.toml", refused.json()["problems"][0])


if __name__ == "__main__":
    unittest.main()
