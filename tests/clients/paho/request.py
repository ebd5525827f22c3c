"""Request and response with correlation data and user properties. Stage "respond" only answers, one request per version and QoS."""

from device import USER, Device, check, run, say

CORRELATION = b"\x00\x01corr\xff"


def respond(responder, qos):
    request = responder.next_message()
    responder.acked(
        responder.publish(
            request.properties["response_topic"],
            b"re: " + request.payload,
            qos,
            correlation=bytes.fromhex(request.properties["correlation"]),
            user=[*request.properties.get("user", []), ("answered", "yes")],
        )
    )


def scenario(asked):
    qos, question, answers = asked.at_qos, f"{asked.topic}/question", f"{asked.topic}/answers"
    responder = Device(asked, "-responder")
    responder.connect()
    responder.subscribe(question, qos)
    say("subscribed", topic=asked.topic)
    if asked.stage == "respond":
        respond(responder, qos)
        responder.disconnect()
        return
    requester = Device(asked, "-requester")
    requester.connect()
    requester.subscribe(answers, qos)
    requester.publish(
        question,
        "wie geht's?".encode(),
        qos,
        response_topic=answers,
        correlation=CORRELATION,
        content_type="text/plain",
        payload_format=1,
        expiry=300,
        user=USER,
    )
    respond(responder, qos)
    answer = requester.next_message()
    check(answer.payload == "re: wie geht's?".encode(), "the answer's payload")
    check(answer.properties["correlation"] == CORRELATION.hex(), "the answer's correlation data")
    check([tuple(pair) for pair in answer.properties["user"]] == [*USER, ("answered", "yes")], "the answer's user properties")
    requester.disconnect()
    responder.disconnect()


run(scenario)
