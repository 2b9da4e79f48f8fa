"""Members of the peer without PostgreSQL: its own client of etcd, called in the order in which its loop calls it."""

import sys
import threading
import time

from patroni.dcs import get_dcs

PORT, MEMBERS, CLUSTER, TTL, LOOP_WAIT = map(int, sys.argv[1:6])
POSITION = 83886176


def member(index):
    name, leads = f"m{index}", index % CLUSTER == 0
    dcs = get_dcs({
        "etcd3": {"host": f"127.0.0.1:{PORT}"}, "scope": f"c{index // CLUSTER}", "name": name,
        "namespace": "/service/", "ttl": TTL, "loop_wait": LOOP_WAIT, "retry_timeout": 10,
    })
    record = {
        "conn_url": f"postgres://10.77.0.{index % 250}:5432/postgres",
        "api_url": f"http://10.77.0.{index % 250}:8008/patroni",
        "state": "running", "role": "primary" if leads else "replica",
        "version": "4.1.5", "xlog_location": POSITION, "timeline": 1,
    }
    slots = {f"m{other}": POSITION for other in range(index, min(index + CLUSTER, MEMBERS))}
    next_run = time.time()
    while True:
        cluster = dcs.get_cluster()
        dcs.touch_member(record)
        if leads and cluster.is_unlocked():
            dcs.attempt_to_acquire_leader()
        elif leads:
            dcs.update_leader(cluster, POSITION, slots)
        next_run = max(next_run + LOOP_WAIT, time.time())
        others = None if leads or cluster.is_unlocked() else cluster.leader.version
        while next_run > time.time():
            if dcs.watch(others, next_run - time.time()):
                break


for index in range(MEMBERS):
    threading.Thread(target=member, args=(index,), daemon=True).start()
    time.sleep(0.05)
threading.Event().wait()
