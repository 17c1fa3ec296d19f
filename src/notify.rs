//! Telling the service manager how the server is: systemd's notification socket (sd_notify(3)), by
//! datagrams to the address in `NOTIFY_SOCKET`. Without it, nothing is told.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

/// A way to the service manager, or none.
#[derive(Debug, Clone, Default)]
pub struct Notifier {
    to: Option<Arc<(UnixDatagram, SocketAddr)>>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// By the variables `NOTIFY_SOCKET` and `WATCHDOG_USEC`, as systemd sets them.
    ///
    /// # Errors
    /// An address that can't be one, or no socket to be had.
    pub fn from_env() -> io::Result<Self> {
        let Some(address) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(Self::default()) };
        let usec = std::env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse().ok());
        // WATCHDOG_PID names who is watched, where it is somebody else.
        let pid = std::env::var("WATCHDOG_PID").ok().and_then(|text| text.parse().ok());
        let ours = pid.is_none_or(|pid: u32| pid == std::process::id());
        let watchdog = usec.filter(|usec| *usec > 0 && ours).map(Duration::from_micros);
        Self::to(address.as_encoded_bytes(), watchdog)
    }

    fn to(address: &[u8], watchdog: Option<Duration>) -> io::Result<Self> {
        use std::os::unix::ffi::OsStrExt;
        let address = match address {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(address))?,
            _ => return Err(io::Error::other("NOTIFY_SOCKET is neither a path nor an @name")),
        };
        let socket = UnixDatagram::unbound()?;
        // Nobody here waits for a manager that does not read.
        socket.set_nonblocking(true)?;
        Ok(Self { to: Some(Arc::new((socket, address))), watchdog })
    }

    /// How often the manager wants a sign of life, at least; half of what it would wait for.
    #[must_use]
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog.map(|patience| patience / 2)
    }

    /// The server takes work.
    pub fn ready(&self) {
        self.tell("READY=1\nSTATUS=ready");
    }

    /// The settings are being read again; [`Notifier::ready`] follows.
    pub fn reloading(&self) {
        if self.to.is_some() {
            let now = uring::time::monotonic().as_micros();
            self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={now}"));
        }
    }

    /// The server has begun to drain.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=draining");
    }

    /// Every loop is alive.
    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    fn tell(&self, state: &str) {
        let Some((socket, address)) = self.to.as_deref() else { return };
        if let Err(error) = socket.send_to_addr(state.as_bytes(), address) {
            tracing::debug!("the service manager was not told {state:?}: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn each_state_is_a_datagram() {
        let name = format!("forebay-notify-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap());
        let manager = manager.unwrap();
        let second = Duration::from_secs(1);
        let notifier = Notifier::to(format!("@{name}").as_bytes(), Some(second)).unwrap();
        assert_eq!(notifier.watchdog(), Some(second / 2));
        notifier.ready();
        notifier.reloading();
        notifier.stopping();
        notifier.alive();
        let mut buffer = [0; 256];
        let mut next = || {
            let length = manager.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        };
        assert!(next().starts_with("READY=1\n"));
        assert!(next().starts_with("RELOADING=1\nMONOTONIC_USEC="));
        assert!(next().starts_with("STOPPING=1\n"));
        assert_eq!(next(), "WATCHDOG=1");
    }

    #[test]
    fn without_a_manager_nothing_is_told() {
        Notifier::default().ready();
        assert!(Notifier::to(b"relative", None).is_err());
        // A manager that is gone is no error.
        Notifier::to(b"@forebay-nobody", None).unwrap().ready();
    }
}
