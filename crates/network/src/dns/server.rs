//! Answering questions: the zone first, everything else upstream.

use std::net::IpAddr;
use std::sync::Arc;

use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{Edns, Metadata, OpCode, ResponseCode};
use hickory_server::proto::rr::{DNSClass, Name, Record, RecordType};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use parking_lot::RwLock;

use super::forward::Forwarder;
use super::zone::{Answer, Zone};
use crate::addr::Net;

/// How many aliases of Services are followed in a row.
const ALIASES: usize = 8;
/// The largest UDP answer, whatever the asker could take.
const LARGEST_UDP: u16 = 4096;

/// What the answer to a question is made of.
#[derive(Debug)]
struct Reply {
    code: ResponseCode,
    authoritative: bool,
    answers: Vec<Record>,
    soa: Option<Record>,
    more: Vec<Record>,
}

impl Reply {
    fn code(code: ResponseCode) -> Self {
        Self { code, authoritative: false, answers: Vec::new(), soa: None, more: Vec::new() }
    }
}

/// Answers for one set of sockets.
#[derive(Debug, Clone)]
pub struct Handler {
    /// What the cluster knows.
    pub zone: Arc<RwLock<Zone>>,
    /// Who is asked for the rest.
    pub forwarder: Arc<Forwarder>,
    /// Who may ask; everybody when absent.
    pub allowed: Option<Arc<[Net]>>,
}

impl Handler {
    async fn reply(&self, client: IpAddr, name: &Name, kind: RecordType) -> Reply {
        let mut answers = Vec::new();
        let mut name = name.clone();
        for _ in 0..ALIASES {
            // The lock is never held while waiting.
            let (answer, soa) = {
                let zone = self.zone.read();
                let answer = zone.answer(&name, kind);
                let soa = matches!(answer, Answer::NoData | Answer::NoName).then(|| zone.soa());
                (answer, soa)
            };
            match answer {
                Answer::Records(mut found, more) => {
                    rotate(&mut found);
                    answers.append(&mut found);
                    return Reply { code: ResponseCode::NoError, authoritative: true, answers, soa: None, more };
                }
                Answer::NoData | Answer::NoName => {
                    let missing = matches!(answer, Answer::NoName) && answers.is_empty();
                    let code = if missing { ResponseCode::NXDomain } else { ResponseCode::NoError };
                    return Reply { code, authoritative: true, answers, soa, more: Vec::new() };
                }
                Answer::NotOurs => {
                    let found = self.forwarder.lookup(client, &name, kind).await;
                    let aliased = !answers.is_empty();
                    answers.extend(found.answers);
                    return Reply {
                        code: found.code,
                        authoritative: aliased,
                        answers,
                        soa: found.soa,
                        more: Vec::new(),
                    };
                }
                Answer::Alias(record, target) => {
                    answers.push(*record);
                    name = target;
                }
            }
        }
        Reply::code(ResponseCode::ServFail)
    }

    async fn decide(&self, request: &Request) -> Reply {
        let client = request.src().ip().to_canonical();
        if self.allowed.as_ref().is_some_and(|allowed| !allowed.iter().any(|net| net.contains(client))) {
            return Reply::code(ResponseCode::Refused);
        }
        if request.metadata.op_code != OpCode::Query {
            return Reply::code(ResponseCode::NotImp);
        }
        if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
            return Reply::code(ResponseCode::BADVERS);
        }
        let [query] = request.queries.queries() else { return Reply::code(ResponseCode::FormErr) };
        if query.query_class() != DNSClass::IN {
            return Reply::code(ResponseCode::Refused);
        }
        self.reply(client, query.original().name(), query.query_type()).await
    }
}

/// Puts another address first each time, so that callers who take the first spread out.
fn rotate(records: &mut [Record]) {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static TURN: AtomicUsize = AtomicUsize::new(0);
    if records.len() > 1 {
        let by = TURN.fetch_add(1, Ordering::Relaxed) % records.len();
        records.rotate_left(by);
    }
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut response: R) -> ResponseInfo {
        let reply = self.decide(request).await;
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.authoritative = reply.authoritative;
        metadata.recursion_available = true;
        metadata.response_code = reply.code;
        let edns = request.edns.as_ref().map(|asked| {
            let mut edns = Edns::new();
            edns.set_max_payload(asked.max_payload().clamp(512, LARGEST_UDP)).set_version(0);
            edns.set_dnssec_ok(asked.flags().dnssec_ok);
            edns.set_rcode_high(reply.code.high());
            edns
        });
        let builder = MessageResponseBuilder::new(&request.queries, edns.as_ref());
        let message = builder.build(metadata, &reply.answers, [], &reply.soa, &reply.more);
        match response.send_response(message).await {
            Ok(info) => info,
            Err(err) => {
                tracing::debug!(%err, client = %request.src(), "sending a DNS answer");
                hickory_server::proto::op::Header {
                    metadata,
                    counts: hickory_server::proto::op::HeaderCounts::default(),
                }
                .into()
            }
        }
    }
}
