//! Connecting to whatever kind of Redis `redis.url` names, on the control thread.

use super::target::{Kind, Target};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, IntoConnectionInfo, Pipeline,
    RedisError, RedisResult, TlsCertificates, TlsMode,
};
use std::time::Duration;

/// What a connection is made with.
#[derive(Clone)]
pub struct Dialer {
    /// Where to.
    pub target: Target,
    /// PEM text of the authorities that TLS trusts; `None`: the system's.
    pub ca: Option<Vec<u8>>,
    /// For a connection, its greeting included.
    pub connect_timeout: Duration,
    /// For any answer.
    pub timeout: Duration,
}

/// A connection that many tasks share; what they ask goes out without waiting for each other's
/// answers.
#[derive(Clone)]
pub enum Connection {
    /// To one node.
    One(MultiplexedConnection),
    /// To all nodes of a cluster.
    Cluster(Box<ClusterConnection>),
}

impl Dialer {
    /// Connects.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn dial(&self) -> RedisResult<Connection> {
        let dialing = async {
            match &self.target.kind {
                Kind::One | Kind::Unix(_) => self.one().await,
                Kind::Sentinel(name) => self.by_sentinel(name).await,
                Kind::Cluster => self.cluster().await,
            }
        };
        let late = || RedisError::from((ErrorKind::Io, "no connection in time"));
        tokio::time::timeout(self.connect_timeout, dialing).await.map_err(|_| late())?
    }

    async fn one(&self) -> RedisResult<Connection> {
        let address = self.target.addresses().remove(0);
        let info = address.into_connection_info()?.set_redis_settings(self.target.identity());
        let client = if self.target.tls {
            Client::build_with_tls(info, self.certificates())?
        } else {
            Client::open(info)?
        };
        let config = self.config();
        client.get_multiplexed_async_connection_with_config(&config).await.map(Connection::One)
    }

    async fn by_sentinel(&self, name: &str) -> RedisResult<Connection> {
        let (user, password, database) = self.target.credentials();
        let kind = SentinelServerType::Master;
        let mut builder = SentinelClientBuilder::new(self.target.addresses(), name, kind)?
            .set_client_to_redis_db(database);
        if let Some(user) = user {
            builder = builder.set_client_to_redis_username(user);
        }
        if let Some(password) = password {
            builder = builder.set_client_to_redis_password(password);
        }
        if self.target.tls {
            builder = builder
                .set_client_to_redis_tls_mode(TlsMode::Secure)
                .set_client_to_redis_certificates(self.certificates())
                .set_client_to_sentinel_tls_mode(TlsMode::Secure)
                .set_client_to_sentinel_certificates(self.certificates());
        }
        let mut client = builder.build()?;
        client.get_async_connection_with_config(&self.config()).await.map(Connection::One)
    }

    async fn cluster(&self) -> RedisResult<Connection> {
        let (user, password, _) = self.target.credentials();
        let mut builder = ClusterClientBuilder::new(self.target.addresses())
            .connection_timeout(self.connect_timeout)
            .response_timeout(self.timeout)
            .overall_response_timeout(Some(self.timeout))
            .retries(2)
            .min_retry_wait(5)
            .max_retry_wait(50);
        if let Some(user) = user {
            builder = builder.username(user);
        }
        if let Some(password) = password {
            builder = builder.password(password);
        }
        if self.target.tls {
            builder = builder.tls(TlsMode::Secure).certs(self.certificates());
        }
        let connection = builder.build()?.get_async_connection().await?;
        Ok(Connection::Cluster(Box::new(connection)))
    }

    fn config(&self) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(Some(self.timeout))
    }

    fn certificates(&self) -> TlsCertificates {
        TlsCertificates { client_tls: None, root_cert: self.ca.clone() }
    }
}

impl Connection {
    /// Asks one thing.
    ///
    /// # Errors
    /// As Redis or the connection says.
    pub async fn ask<T: FromRedisValue>(&mut self, command: &Cmd) -> RedisResult<T> {
        match self {
            Self::One(connection) => ask(connection, command).await,
            Self::Cluster(connection) => ask(&mut **connection, command).await,
        }
    }

    /// Asks many things at once; in a cluster all keys are of one slot.
    ///
    /// # Errors
    /// As Redis or the connection says.
    pub async fn ask_all<T: FromRedisValue>(&mut self, commands: &Pipeline) -> RedisResult<T> {
        match self {
            Self::One(connection) => commands.query_async(connection).await,
            Self::Cluster(connection) => commands.query_async(&mut **connection).await,
        }
    }
}

async fn ask<T: FromRedisValue>(
    connection: &mut impl ConnectionLike,
    command: &Cmd,
) -> RedisResult<T> {
    command.query_async(connection).await
}
