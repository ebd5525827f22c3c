"""A session that outlives its connection. Stage "subscribe" makes it, stage "resume" takes what came meanwhile."""

from device import Device, check, run


def scenario(asked):
    device = Device(asked, clean=False, expiry=3600)
    present = device.connect()
    end = f"{asked.topic}/end"
    if asked.stage == "subscribe":
        check(not present, "the session was there before")
        device.subscribe(f"{asked.topic}/#", asked.at_qos)
    else:
        check(present, "the session is lost")
        device.publish(end, b"end", asked.at_qos)
        messages = []
        while not messages or messages[-1].topic != end:
            messages.append(device.next_message())
        payloads = [message.payload for message in messages[:-1]]
        check(len(payloads) == asked.count, f"{len(payloads)} messages in place of {asked.count}")
        check(payloads == sorted(set(payloads)), "a message came twice or out of order")
    device.disconnect()


run(scenario)
