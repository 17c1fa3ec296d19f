//! A scripted origin: a listener on loopback and one thread per connection that runs the script.

use crate::trust::Certificate;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// A listener whose connections run a script. Its threads end with their connections.
pub(crate) struct Origin {
    port: u16,
    scheme: &'static str,
    connections: Arc<AtomicUsize>,
    ended: Arc<(Mutex<usize>, Condvar)>,
}

/// One connection of an origin.
pub(crate) struct Conn {
    stream: Box<dyn Stream>,
    ended: Arc<(Mutex<usize>, Condvar)>,
}

trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

impl Origin {
    /// An origin for http.
    pub(crate) fn start(script: impl Fn(&mut Conn) + Send + Sync + 'static) -> Self {
        Self::listen("http", |tcp| Box::new(tcp), script)
    }

    /// An origin for https with one certificate.
    pub(crate) fn start_tls(
        certificate: Certificate,
        script: impl Fn(&mut Conn) + Send + Sync + 'static,
    ) -> Self {
        Self::start_behind(|_| (), certificate.server(&[]), script)
    }

    /// An origin for https behind something that speaks first, as a proxy does.
    pub(crate) fn start_behind(
        before: impl Fn(&mut TcpStream) + Send + 'static,
        config: Arc<rustls::ServerConfig>,
        script: impl Fn(&mut Conn) + Send + Sync + 'static,
    ) -> Self {
        let accept = move |mut tcp| -> Box<dyn Stream> {
            before(&mut tcp);
            let session = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            Box::new(rustls::StreamOwned::new(session, tcp))
        };
        Self::listen("https", accept, script)
    }

    fn listen(
        scheme: &'static str,
        accept: impl Fn(TcpStream) -> Box<dyn Stream> + Send + 'static,
        script: impl Fn(&mut Conn) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let ended = Arc::new((Mutex::new(0), Condvar::new()));
        let (counter, done) = (Arc::clone(&connections), Arc::clone(&ended));
        let script = Arc::new(script);
        std::thread::spawn(move || {
            for tcp in listener.incoming() {
                let tcp = tcp.unwrap();
                tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                counter.fetch_add(1, Ordering::SeqCst);
                let mut conn = Conn { stream: accept(tcp), ended: Arc::clone(&done) };
                let script = Arc::clone(&script);
                std::thread::spawn(move || script(&mut conn));
            }
        });
        Self { port, scheme, connections, ended }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}://127.0.0.1:{}{path}", self.scheme, self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Waits until `count` connections have said that they [`Conn::ended`].
    pub(crate) fn wait_ended(&self, count: usize) {
        let (lock, changed) = &*self.ended;
        let limit = Duration::from_secs(10);
        let guard = lock.lock().unwrap();
        let (guard, _) = changed.wait_timeout_while(guard, limit, |n| *n < count).unwrap();
        assert_eq!(*guard, count, "connections that the fetcher closed");
    }
}

impl Conn {
    /// The next request's head; the connection must bring one.
    pub(crate) fn request(&mut self) -> String {
        self.try_request().expect("a request")
    }

    /// The next request's head, `None` at the end of the connection.
    pub(crate) fn try_request(&mut self) -> Option<String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            match self.stream.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                _ => return None,
            }
        }
        Some(String::from_utf8(head).unwrap())
    }

    /// Sends as much as the other end takes.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes);
    }

    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).and_then(|()| self.stream.flush()).is_ok()
    }

    /// The next `len` bytes, for protocols without lines.
    pub(crate) fn take(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Reads one byte, so that the rest of the request is unread when the script ends: closing a
    /// socket with unread bytes resets the connection.
    pub(crate) fn touch(&mut self) {
        let _ = self.stream.read(&mut [0]);
    }

    /// Until the other end closes or resets.
    pub(crate) fn wait_for_close(&mut self) {
        let mut sink = [0; 512];
        while matches!(self.stream.read(&mut sink), Ok(1..)) {}
    }

    pub(crate) fn ended(&self) {
        *self.ended.0.lock().unwrap() += 1;
        self.ended.1.notify_all();
    }
}
