// A session that outlives its connection. Stage "subscribe" makes it, stage "resume" takes what came meanwhile.

import { Device, check, run } from "./device.mjs";

await run(async (asked) => {
    const device = new Device(asked, { clean: false, expiry: 3600 });
    const present = await device.connect();
    const end = `${asked.topic}/end`;
    if (asked.stage === "subscribe") {
        check(!present, "the session was there before");
        await device.subscribe(`${asked.topic}/#`, asked.qos);
    } else {
        check(present, "the session is lost");
        await device.publish(end, "end", asked.qos);
        const payloads = [];
        for (let message = await device.next(); message.topic !== end; message = await device.next()) {
            payloads.push(message.payload.toString());
        }
        check(payloads.length === asked.count, `${payloads.length} messages in place of ${asked.count}`);
        const rising = payloads.every((payload, at) => at === 0 || payloads[at - 1] < payload);
        check(rising, "a message came twice or out of order");
    }
    await device.disconnect();
});
