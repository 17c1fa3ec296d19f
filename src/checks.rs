//! Everything that would keep a server from starting with some settings, all of it at once and each
//! with its place: for `serve` before it starts, for `check`, and for a reload before anything changes.
//!
//! Nothing is started, made or taken: a server that runs with the same settings does not notice. What
//! only shows when it is done stays with [`crate::server::StartError`]: an address that is in use, an
//! index that is locked, and what a module of one's own turns out to be when it is compiled.

use crate::cluster;
use crate::config::reload::Recipe;
use crate::config::{Config, Loaded, Problem, Wrong};
use crate::extract::Extractor;
use crate::fetch::egress::Egress;
use crate::fetch::proxy::Proxy;
use crate::fetch::target::Target;
use crate::fetch::{field, tls};
use crate::otlp;
use crate::parts;
use crate::search::Search;
use crate::serve::access::Access;
use std::slice::from_ref;
use uring::probe::{self, Runtime};

/// Reads the settings and checks what they say. Blocks for some files: at the start, or on the control
/// thread.
///
/// # Errors
/// Every mistake found.
pub fn read(recipe: &Recipe) -> Result<Loaded, Vec<Problem>> {
    let (loaded, mut problems) = recipe.read_partly();
    loaded.add(check_all(&loaded.config), &mut problems);
    if problems.is_empty() { Ok(loaded) } else { Err(problems) }
}

/// What is wrong with values that their types and bounds allow.
#[must_use]
pub fn check_all(config: &Config) -> Vec<Wrong> {
    let mut wrong = check_fetch(config);
    if config.runtime == Runtime::IoUring
        && let Err(error) = probe::choose(config.runtime, &probe::probe())
    {
        wrong.push(Wrong::new("server.runtime", error));
    }
    wrong.extend(Access::check(config));
    wrong.extend(cluster::check(config));
    wrong.extend(Search::check(config));
    wrong.extend(otlp::check(config));
    if let Some(path) = &config.extract_module
        && let Err(error) = Extractor::look(path)
    {
        wrong.push(Wrong::new("extract.module", error));
    }
    wrong
}

/// What [`parts::fetch_config`] would stop at, each by itself.
fn check_fetch(config: &Config) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    for (setting, rules) in
        [("egress.allow", &config.egress_allow), ("egress.deny", &config.egress_deny)]
    {
        for rule in rules {
            if let Err(error) = Egress::new(from_ref(rule), &[], &[]) {
                wrong.push(Wrong::new(setting, error));
            }
        }
    }
    for prefix in &config.egress_nat64 {
        let egress = Egress::new(&[], &[], &[]);
        if let Err(error) = egress.and_then(|egress| egress.with_nat64(from_ref(prefix))) {
            wrong.push(Wrong::new("egress.nat64", error));
        }
    }
    let proxy = config.egress_proxy.reveal();
    if !proxy.is_empty()
        && let Err(error) = Proxy::parse(proxy, parts::proxy_dns(config))
    {
        wrong.push(Wrong::new("egress.proxy", error));
    }
    if let Err(error) = field::check("user-agent", &config.user_agent) {
        wrong.push(Wrong::new("fetch.user_agent", error));
    }
    let files: Vec<_> = config.extra_ca.iter().cloned().collect();
    if let Err(error) = tls::client_config(parts::tls_roots(config), &files, config.http2) {
        wrong.push(Wrong::together(&["fetch.extra_ca", "fetch.roots"], error));
    }
    if !config.search_url.is_empty()
        && let Err(error) = Target::parse(&config.search_url)
    {
        wrong.push(Wrong::new("search.url", error));
    }
    wrong
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::parts::fetch_config;

    /// A value for each setting that its type takes and a server can't use.
    const MISTAKES: [(&str, &str); 22] = [
        ("egress.allow", "10.0.0.0/99"),
        ("egress.deny", "a b"),
        ("egress.nat64", "2001:db8:64::/33"),
        ("egress.proxy", "ftp://proxy"),
        ("fetch.user_agent", "a\u{7f}b"),
        ("fetch.extra_ca", "/none/ca.pem"),
        ("search.url", "nowhere"),
        ("search.index_dir", "/proc/version/x"),
        ("server.listen", "0.0.0.0:80"),
        ("server.trusted_proxies", "proxy.example"),
        ("server.proxy_protocol", "true"),
        ("server.hosts", "http://a.example"),
        ("cors.origins", "example.com"),
        ("tls.cert", "/none/cert.pem"),
        ("tls.key", "/none/key.pem"),
        ("auth.keys_file", "/none/keys.toml"),
        ("audit.file", "/none/audit.jsonl"),
        ("redis.url", "http://redis"),
        ("otlp.endpoint", "collector:4318"),
        ("extract.module", "/none/module.wasm"),
        ("log.level", "["),
        ("search.provider", "brave"),
    ];

    fn wrong(config: &Config) -> Vec<Wrong> {
        config.validate().into_iter().chain(check_all(config)).collect()
    }

    #[test]
    fn defaults_are_good_and_each_mistake_is_found_by_itself() {
        assert_eq!(wrong(&Config::default()), []);
        for (setting, value) in MISTAKES {
            let mut config = Config::default();
            config.set(setting, value).unwrap();
            let found = wrong(&config);
            assert_eq!(found.len(), 1, "{setting}: {found:?}");
            assert!(found[0].settings.contains(&setting), "{setting}: {found:?}");
        }
    }

    #[test]
    fn what_needs_another_setting_is_found_with_it() {
        for (setting, value, other, with) in [
            ("redis.prefix", "a b", "redis.url", "redis://127.0.0.1"),
            ("redis.ca", "/none/ca.pem", "redis.url", "rediss://127.0.0.1"),
            ("otlp.headers", "nothing", "otlp.endpoint", "http://127.0.0.1:4318"),
        ] {
            let mut config = Config::default();
            config.set(setting, value).unwrap();
            config.set(other, with).unwrap();
            let found = wrong(&config);
            assert_eq!(found.len(), 1, "{setting}: {found:?}");
            assert_eq!(found[0].settings, [setting], "{found:?}");
        }
    }

    #[test]
    fn all_mistakes_are_told_at_once_each_with_its_line() {
        let mut text = String::new();
        for (setting, value) in MISTAKES {
            text.push_str(&format!("{setting} = {}\n", toml::Value::from(value)));
        }
        let path = std::env::temp_dir().join(format!("forebay-{}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        let told = read(&Recipe { file: Some(path.clone()), ..Recipe::default() }).unwrap_err();
        std::fs::remove_file(&path).unwrap();
        let told: Vec<String> = told.iter().map(ToString::to_string).collect();
        for (at, (setting, _)) in MISTAKES.iter().enumerate() {
            // Keys from a file there is none of, so nobody is let in; proxies there are, so they may send it.
            if matches!(
                *setting,
                "server.listen" | "server.proxy_protocol" | "tls.key" | "search.index_dir"
            ) {
                continue;
            }
            let start = format!("{}:{}: {setting}: ", path.display(), at + 1);
            assert!(told.iter().any(|told| told.starts_with(&start)), "{start} in {told:#?}");
        }
        assert_eq!(told.len(), MISTAKES.len() - 4, "{told:#?}");
    }

    #[test]
    fn what_a_check_passes_can_be_started_with() {
        for (setting, value) in MISTAKES {
            let mut config = Config::default();
            config.set(setting, value).unwrap();
            if fetch_config(&config).is_err() {
                assert!(!check_fetch(&config).is_empty(), "{setting}");
            }
        }
        assert!(fetch_config(&Config::default()).is_ok());
    }
}
