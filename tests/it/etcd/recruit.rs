//! A leader that is replaced while its lease lives: on a real etcd.

use matriarch::core::store::{Cas, Keys, Txn};
use matriarch::etcd::Etcd;
use matriarch::model::{
    Deposal, FailoverRequest, LeaseId, RecruitWrite, SyncRecord, TakeLeadershipPreconditions, Term,
};

use super::{BEFORE_ALL, Server, granted, is_done, keep, name, read, term};

/// `n-1` leads with the standby `n-2`, and `n-2` or `n-3` may take its place.
struct Cluster {
    _server: Server,
    _keepers: Vec<matriarch::etcd::LeaseKeeper>,
    etcd: Etcd,
    led: (Term, LeaseId),
    two: LeaseId,
    three: LeaseId,
}

impl Cluster {
    async fn start() -> Cluster {
        let server = Server::start().await;
        let etcd = server.connect();
        let keepers: Vec<_> = (0..3).map(|_| keep(server.setup(), 10)).collect();
        let (one, two, three) =
            (granted(&keepers[0]).await, granted(&keepers[1]).await, granted(&keepers[2]).await);
        let take = etcd.keys().take_leadership(&name("n-1"), one, BEFORE_ALL);
        let led = (term(etcd.commit(&take).await.expect("etcd is up")), one);
        let record = SyncRecord { leader: Some(name("n-1")), quorum: 0, voters: [name("n-2")].into() };
        assert!(is_done(etcd.commit(&etcd.keys().write_sync(led, Some(&record), 0)).await));
        Cluster { _server: server, _keepers: keepers, etcd, led, two, three }
    }

    fn keys(&self) -> &Keys {
        self.etcd.keys()
    }

    async fn commit(&self, txn: Txn) -> Cas {
        self.etcd.commit(&txn).await.expect("etcd is up")
    }

    async fn sync(&self) -> i64 {
        read(&self.etcd).await.sync.expect("it was written").mod_revision
    }

    async fn begin(&self, member: &str, lease: LeaseId) -> Cas {
        let begin = RecruitWrite::Begin { term: self.led.0, sync: self.sync().await, over: 0 };
        self.commit(self.keys().write_recruit(&name(member), lease, &begin)).await
    }

    /// The deposal by `n-2`, as it was decided on now.
    async fn deposal(&self) -> Txn {
        let attempt = read(&self.etcd).await.recruit.expect("it has begun").attempt;
        let by = TakeLeadershipPreconditions {
            sync: self.sync().await,
            unfenced: 0,
            failsafe: 0,
            unlocked: attempt,
            deposes: Some(Deposal { term: self.led.0, attempt }),
        };
        self.keys().take_leadership(&name("n-2"), self.two, by)
    }
}

#[tokio::test]
async fn a_candidate_takes_the_key_of_a_living_lease() {
    let cluster = Cluster::start().await;
    assert!(matches!(cluster.begin("n-2", cluster.two).await, Cas::Done(_)));
    assert_eq!(cluster.begin("n-3", cluster.three).await, Cas::Lost, "etcd decides between two candidates");
    let view = read(&cluster.etcd).await;
    let key = view.recruit.clone().expect("it has begun");
    assert_eq!((key.candidate, key.term), (name("n-2"), cluster.led.0));
    let deposal = cluster.deposal().await;
    let Cas::Done(term) = cluster.commit(deposal.clone()).await else { panic!("the key is taken") };
    let view = read(&cluster.etcd).await;
    let leader = view.leader.expect("somebody leads");
    assert_eq!((leader.name, leader.lease, leader.term), (name("n-2"), Some(cluster.two), Term(term)));
    assert_eq!(view.recruit, None);
    assert!(matches!(cluster.commit(deposal).await, Cas::Done(_)), "the same request after a lost answer");
    let late = cluster.keys().write_sync(cluster.led, None, view.sync.expect("it stays").mod_revision);
    assert_eq!(cluster.commit(late).await, Cas::Lost, "the former leader writes nothing more");
}

#[tokio::test]
async fn an_attempt_that_was_withdrawn_or_overtaken_does_not_succeed() {
    for case in 0..4 {
        let cluster = Cluster::start().await;
        assert!(matches!(cluster.begin("n-2", cluster.two).await, Cas::Done(_)));
        let deposal = cluster.deposal().await;
        let attempt = read(&cluster.etcd).await.recruit.expect("it has begun").attempt;
        let withdraw =
            cluster.keys().write_recruit(&name("n-3"), cluster.three, &RecruitWrite::Withdraw { attempt });
        match case {
            0 => assert!(matches!(cluster.commit(withdraw).await, Cas::Done(_))),
            1 => {
                // Withdrawn, and another one begun.
                assert!(matches!(cluster.commit(withdraw).await, Cas::Done(_)));
                assert!(matches!(cluster.begin("n-2", cluster.two).await, Cas::Done(_)));
            }
            2 => {
                // The leader does without its standby from now on.
                let over = cluster.sync().await;
                let none = cluster.keys().write_sync(cluster.led, None, over);
                assert!(matches!(cluster.commit(none).await, Cas::Done(_)));
            }
            _ => {
                let request = FailoverRequest { candidate: Some(name("n-3")), ..FailoverRequest::default() };
                let asked = cluster.keys().write_failover(Some(&request), None);
                assert!(matches!(cluster.commit(asked).await, Cas::Done(_)));
            }
        }
        assert_eq!(cluster.commit(deposal).await, Cas::Lost, "case {case}");
        assert_eq!(read(&cluster.etcd).await.leader.expect("it leads").name, name("n-1"));
    }
}
