// Sets a retained message twice, reads the newest one back, deletes it, and finds nothing.

import { Device, awaitGo, check, run, say } from "./device.mjs";

const KEPT = Buffer.from([...Buffer.from("kept "), 0, 0xff]);

await run(async (asked) => {
    const { qos } = asked;
    const topic = `${asked.topic}/kept`;
    const device = new Device(asked);
    await device.connect();
    await device.publish(topic, "replaced", qos, { retain: true });
    await device.publish(topic, KEPT, qos, { retain: true });
    await device.fence();
    say("kept", { topic });
    await awaitGo();

    const reader = new Device(asked, { suffix: "-reader" });
    await reader.connect();
    await reader.subscribe(topic, qos);
    const message = await reader.next();
    check(message.payload.equals(KEPT) && message.qos === qos && message.retain, "the retained message");
    await reader.disconnect();

    await device.publish(topic, "", qos, { retain: true });
    await device.fence();
    say("deleted", { topic });
    await awaitGo();

    const late = new Device(asked, { suffix: "-late" });
    await late.connect();
    await late.subscribe(topic, qos);
    await late.subscribe(`${asked.topic}/fence`, 1);
    await late.fence();
    check((await late.next()).topic === `${asked.topic}/fence`, "the deleted message came back");
    await late.disconnect();
    await device.disconnect();
});
