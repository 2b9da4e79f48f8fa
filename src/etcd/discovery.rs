//! etcd's endpoints from SRV records in DNS.

use std::fmt;
use std::time::Duration;

use domain::base::iana::{Class, Rcode};
use domain::base::{Name, Rtype};
use domain::rdata::Srv;
use domain::resolv::StubResolver;

use super::{EtcdError, EtcdSetup};

/// How long the name servers may take for all questions.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The services whose records are used, in this order; the first with records counts.
const SERVICES: [(&str, &str); 4] =
    [("_etcd-client-ssl", "https"), ("_etcd-client", "http"), ("_etcd-ssl", "https"), ("_etcd", "http")];

/// The domain with the records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SrvDomain {
    /// The domain.
    pub domain: String,
    /// Appended to the service: `_etcd-client-SUFFIX`.
    pub suffix: Option<String>,
}

impl fmt::Display for SrvDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = SERVICES.iter().map(|(service, _)| self.record(service)).collect();
        f.write_str(&names.join(", "))
    }
}

impl SrvDomain {
    fn record(&self, service: &str) -> String {
        let suffix = self.suffix.as_ref().map_or_else(String::new, |suffix| format!("-{suffix}"));
        format!("{service}{suffix}._tcp.{}", self.domain.trim_matches('.'))
    }

    /// The URLs of the endpoints, those of the best priority first.
    ///
    /// # Errors
    /// No name server answers, or there are no records.
    pub async fn endpoints(&self, resolver: &StubResolver) -> Result<Vec<String>, EtcdError> {
        let looked_up = tokio::time::timeout(ANSWER_WITHIN, self.first_records(resolver)).await;
        looked_up.map_err(|_| EtcdError::Timeout(ANSWER_WITHIN))?
    }

    async fn first_records(&self, resolver: &StubResolver) -> Result<Vec<String>, EtcdError> {
        for (service, scheme) in SERVICES {
            let hosts = records(resolver, &self.record(service)).await?;
            if !hosts.is_empty() {
                return Ok(hosts.into_iter().map(|host| format!("{scheme}://{host}")).collect());
            }
        }
        Err(EtcdError::Unknown(format!("DNS has no SRV record of {self}")))
    }
}

impl EtcdSetup {
    /// The setup with the endpoints in DNS, where they are there. If they cannot be read, the configured ones count.
    ///
    /// # Errors
    /// They cannot be read, and none are configured.
    pub async fn discovered(self) -> Result<EtcdSetup, EtcdError> {
        self.discovered_by(&StubResolver::new()).await
    }

    async fn discovered_by(self, resolver: &StubResolver) -> Result<EtcdSetup, EtcdError> {
        let Some(srv) = &self.srv else { return Ok(self) };
        match srv.endpoints(resolver).await {
            Ok(endpoints) => Ok(EtcdSetup { endpoints, srv: None, ..self }),
            Err(error) if self.endpoints.is_empty() => Err(error),
            Err(error) => {
                tracing::warn!(%error, "using the configured endpoints of etcd: those in DNS cannot be read");
                Ok(EtcdSetup { srv: None, ..self })
            }
        }
    }
}

/// `HOST:PORT` of each SRV record of a name, in the order of priority; none if the name does not exist.
async fn records(resolver: &StubResolver, name: &str) -> Result<Vec<String>, EtcdError> {
    let trouble = |error: &dyn fmt::Display| EtcdError::Unknown(format!("DNS, {name}: {error}"));
    let question = Name::vec_from_str(name)
        .map_err(|error| EtcdError::Setup(format!("`{name}` is no name in DNS: {error}")))?;
    let answer = resolver.query((question, Rtype::SRV, Class::IN)).await.map_err(|error| trouble(&error))?;
    match answer.header().rcode() {
        Rcode::NOERROR => {}
        Rcode::NXDOMAIN => return Ok(Vec::new()),
        other => return Err(trouble(&other)),
    }
    let section = answer.answer().map_err(|error| trouble(&error))?;
    let mut found = Vec::new();
    for record in section.limit_to_in::<Srv<_>>() {
        let record = record.map_err(|error| trouble(&error))?;
        let data = record.data();
        let host = data.target().to_string();
        // A record of the root says that there is no such service.
        if !host.trim_matches('.').is_empty() {
            found.push((data.priority(), format!("{}:{}", host.trim_end_matches('.'), data.port())));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, host)| host).collect())
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use domain::base::{Message, MessageBuilder};
    use domain::resolv::stub::conf::{ResolvConf, ServerConf, Transport};

    use super::*;

    /// A name server with these SRV records: name, priority, port, target. It does not know a name that ends in `gone`
    /// well enough to say whether it exists.
    fn name_server(records: &'static [(&'static str, u16, u16, &'static str)]) -> StubResolver {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let address = socket.local_addr().expect("it is bound");
        std::thread::spawn(move || {
            let mut buffer = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let question = Message::from_octets(&buffer[..length]).expect("a message");
                let asked = question.sole_question().expect("one question").qname().to_string();
                let of_name = records.iter().filter(|(name, ..)| *name == asked.trim_end_matches('.'));
                let code = match (of_name.clone().count(), asked.trim_end_matches('.').ends_with("gone")) {
                    (_, true) => Rcode::SERVFAIL,
                    (0, false) => Rcode::NXDOMAIN,
                    (_, false) => Rcode::NOERROR,
                };
                let mut answer = MessageBuilder::new_vec().start_answer(&question, code).expect("room");
                for (_, priority, port, target) in of_name {
                    let name = |name: &str| Name::<Vec<u8>>::vec_from_str(name).expect("a name");
                    let data = Srv::new(*priority, 1, *port, name(target));
                    answer.push((name(&asked), 60, data)).expect("room");
                }
                socket.send_to(&answer.finish(), from).expect("it is sent");
            }
        });
        let mut conf = ResolvConf::new();
        conf.servers = vec![ServerConf::new(address, Transport::UdpTcp)];
        conf.options.timeout = Duration::from_secs(1);
        StubResolver::from_conf(conf)
    }

    const RECORDS: &[(&str, u16, u16, &str)] = &[
        ("_etcd-client._tcp.plain.test", 20, 2379, "c.plain.test"),
        ("_etcd-client._tcp.plain.test", 10, 2381, "b.plain.test"),
        ("_etcd-client._tcp.plain.test", 10, 2380, "a.plain.test"),
        ("_etcd._tcp.plain.test", 1, 2379, "other.plain.test"),
        ("_etcd-client._tcp.both.test", 1, 2379, "a.both.test"),
        ("_etcd-client-ssl._tcp.both.test", 1, 2379, "b.both.test"),
        ("_etcd-client-ssl-blue._tcp.both.test", 1, 2379, "blue.both.test"),
        ("_etcd-client-ssl._tcp.none.test", 0, 0, "."),
        ("_etcd-server._tcp.none.test", 0, 2380, "peer.none.test"),
    ];

    async fn found(domain: &str, suffix: Option<&str>) -> Result<Vec<String>, String> {
        let srv = SrvDomain { domain: domain.to_owned(), suffix: suffix.map(str::to_owned) };
        srv.endpoints(&name_server(RECORDS)).await.map_err(|error| error.to_string())
    }

    /// The first service with records counts, and says whether TLS is spoken; the best priority comes first.
    #[tokio::test]
    async fn records_name_the_endpoints() {
        let plain = ["http://a.plain.test:2380", "http://b.plain.test:2381", "http://c.plain.test:2379"];
        assert_eq!(found("plain.test", None).await.expect("there are records"), plain);
        assert_eq!(found("both.test.", None).await.expect("there are records"), ["https://b.both.test:2379"]);
        let blue = found("both.test", Some("blue")).await;
        assert_eq!(blue.expect("there are records"), ["https://blue.both.test:2379"]);
    }

    /// Peers of etcd answer no clients.
    #[tokio::test]
    async fn without_records_the_names_are_told() {
        let why = found("none.test", None).await.expect_err("only peers have records");
        assert!(why.contains("_etcd-client-ssl._tcp.none.test, _etcd-client._tcp.none.test"), "{why}");
        let why = found("x gone", None).await.expect_err("the server fails");
        assert!(why.contains("_etcd-client-ssl._tcp.x gone"), "{why}");
    }

    /// The addresses in the file are used while DNS does not answer.
    #[tokio::test]
    async fn configured_endpoints_count_without_dns() {
        let srv = SrvDomain { domain: "missing.test".to_owned(), suffix: None };
        let setup = EtcdSetup { srv: Some(srv), ..EtcdSetup::default() };
        let resolver = name_server(RECORDS);
        assert!(setup.clone().discovered_by(&resolver).await.is_err());
        let setup = EtcdSetup { endpoints: vec!["http://a:1".to_owned()], ..setup };
        let setup = setup.discovered_by(&resolver).await.expect("one is configured");
        assert_eq!((setup.endpoints, setup.srv), (vec!["http://a:1".to_owned()], None));
    }
}
