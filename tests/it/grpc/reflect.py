"""Calls methods of a gRPC server that this client knows only by reflection, and prints what it got as JSON.

The argument is JSON: {"address": "HOST:PORT", "root": FILE, "certificate": FILE, "key": FILE, "authorization": TEXT,
"calls": [["package.Service/Method", {request}], ...]}; without "root" it speaks no TLS.
"""

import json
import sys

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

WITHIN_SECONDS = 90


def content(path):
    if path is None:
        return None
    with open(path, "rb") as file:
        return file.read()


def connect(task):
    if "root" not in task:
        return grpc.insecure_channel(task["address"])
    files = [content(task.get(name)) for name in ("root", "key", "certificate")]
    return grpc.secure_channel(task["address"], grpc.ssl_channel_credentials(*files))


def call(channel, pool, task, path, fields):
    service, method = path.split("/")
    described = pool.FindServiceByName(service).methods_by_name[method]
    request = json_format.ParseDict(fields, message_factory.GetMessageClass(described.input_type)())
    answer = message_factory.GetMessageClass(described.output_type)
    kind = channel.unary_stream if described.server_streaming else channel.unary_unary
    invoke = kind(
        "/" + path,
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=answer.FromString,
    )
    metadata = [("authorization", task["authorization"])] if "authorization" in task else []
    messages = []
    try:
        got = invoke(request, timeout=WITHIN_SECONDS, metadata=metadata)
        for message in got if described.server_streaming else [got]:
            messages.append(json_format.MessageToDict(message, preserving_proto_field_name=True))
        return {"code": "OK", "text": "", "messages": messages}
    except grpc.RpcError as error:
        return {"code": error.code().name, "text": error.details(), "messages": messages}


task = json.loads(sys.argv[1])
with connect(task) as channel:
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = descriptor_pool.DescriptorPool(database)
    answers = [call(channel, pool, task, path, fields) for path, fields in task["calls"]]
    print(json.dumps({"services": sorted(database.get_services()), "answers": answers}))
