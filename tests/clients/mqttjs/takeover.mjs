// A second connection with the same client ID: the first one is told and closed, the second one is served.

import { Device, check, run, say } from "./device.mjs";

await run(async (asked) => {
    const [first, second] = [new Device(asked), new Device(asked)];
    await first.connect();
    await first.subscribe(`${asked.topic}/first`, asked.qos);
    await second.connect();
    const reason = await first.ends.take("the end of the first connection");
    check(asked.version !== 5 || reason === 0x8e, `closed with ${reason}`);
    say("taken", { client: first.id, reason });
    await second.subscribe(`${asked.topic}/second`, asked.qos);
    say("subscribed", { topic: asked.topic });
    await second.next();
    await second.disconnect();
});
