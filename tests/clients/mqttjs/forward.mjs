// A device at the edge and a reader at the cloud: content, QoS, order and properties are the same on both sides.

import { CORRELATION, Device, USER, check, pairs, payloads, run, say } from "./device.mjs";

await run(async (asked) => {
    const reader = new Device(asked, { suffix: "-reader", port: asked["peer-port"] });
    await reader.connect();
    await reader.subscribe(`${asked.topic}/#`, asked.qos);
    say("subscribed", { topic: asked.topic });
    const device = new Device(asked, { suffix: "-device" });
    await device.connect();
    const properties = {
        contentType: "text/plain",
        responseTopic: `${asked.topic}/answers`,
        correlationData: CORRELATION,
        messageExpiryInterval: 300,
        userProperties: USER,
    };
    const described = asked.version === 5 ? { properties } : {};
    const sent = payloads(false).map((payload) => [payload, device.publish(`${asked.topic}/up`, payload, asked.qos, described)]);
    for (const [payload] of sent) {
        const message = await reader.next();
        check(message.payload.equals(payload) && message.qos === asked.qos, "payload or QoS at the cloud");
        if (asked.version === 5) {
            check(message.properties.correlation === CORRELATION.toString("hex"), "correlation data at the cloud");
            const user = Object.entries(USER).flatMap(pairs);
            check(JSON.stringify(message.properties.user) === JSON.stringify(user), "user properties at the cloud");
        }
    }
    await Promise.all(sent.map(([, acknowledged]) => acknowledged));
    await device.disconnect();
    await reader.disconnect();
});
