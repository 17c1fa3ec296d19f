//! Descriptors: how many this process may open, and what they go to. Each client's connection takes
//! one, each fetch one, each idle connection to an origin one.

use crate::config::Config;
use crate::observe::process::Process;

/// Descriptors of one core beside its connections: ring, doorbell, listener, lane.
const PER_CORE: u64 = 16;
/// Descriptors of the whole process: log, index, Redis, resolver and what else is open.
const OTHERS: u64 = 64;

/// What fetching may use of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outbound {
    /// Requests under way at a time, of the whole process.
    pub requests: u32,
    /// Idle connections of one core.
    pub idle: usize,
}

/// How many this process may open, once it has asked for as many as it may have.
#[must_use]
pub fn available() -> u64 {
    uring::raise_descriptors().unwrap_or_else(|error| {
        tracing::warn!("the limit on descriptors can't be raised: {error}");
        Process::read().fds_max.unwrap_or(u64::MAX)
    })
}

/// As much as the settings say, but of `descriptors` a quarter for requests and an eighth for idle
/// connections at most: the rest is the clients'.
#[must_use]
pub fn outbound(config: &Config, descriptors: u64, cores: usize) -> Outbound {
    let fits = |share: u64| usize::try_from(share).unwrap_or(usize::MAX).max(1);
    let requests = u32::try_from(descriptors / 4).unwrap_or(u32::MAX).max(1);
    Outbound {
        requests: config.fetch_concurrency_max.min(requests),
        idle: config.pool_max.min(fits(descriptors / 8 / cores.max(1) as u64)),
    }
}

/// What is said at the start where there are too few of them for all that the settings allow.
#[must_use]
pub fn shortage(config: &Config, descriptors: u64, cores: usize) -> Option<String> {
    let Outbound { requests, idle } = outbound(config, descriptors, cores);
    let (clients, cores) = (config.connections_max as u64, cores as u64);
    let idle = (idle as u64).saturating_mul(cores);
    let needed = clients + u64::from(requests) + idle + PER_CORE * cores + OTHERS;
    (needed > descriptors).then(|| {
        format!(
            "{descriptors} descriptors may be open, and {clients} clients (server.connections_max), {requests} fetches \
             (fetch.concurrency_max) and {idle} idle connections to origins take {needed}: some clients would wait to be \
             accepted; raise the limit (ulimit -Hn, LimitNOFILE=) or lower server.connections_max"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fetching_leaves_most_descriptors_to_clients() {
        let config = Config::default();
        let all = Outbound { requests: config.fetch_concurrency_max, idle: config.pool_max };
        assert_eq!(outbound(&config, u64::MAX, 2), all);
        assert_eq!(outbound(&config, 1024, 2), Outbound { requests: 256, idle: 64 });
        assert_eq!(outbound(&config, 0, 0), Outbound { requests: 1, idle: 1 });
        for descriptors in [64, 1024, 4096, 1 << 20] {
            let Outbound { requests, idle } = outbound(&config, descriptors, 8);
            assert!(u64::from(requests) + 8 * idle as u64 <= descriptors / 8 * 3);
        }
    }

    #[test]
    fn too_few_are_told_with_what_to_change() {
        let config = Config::default();
        let told = shortage(&config, 1024, 2).unwrap_or_default();
        for part in ["1024 descriptors", "20000 clients", "server.connections_max", "LimitNOFILE"] {
            assert!(told.contains(part), "{told}");
        }
        assert_eq!(shortage(&config, 1 << 20, 2), None);
        let few = Config { connections_max: 500, ..config };
        assert_eq!(shortage(&few, 1024, 2), None);
    }
}
