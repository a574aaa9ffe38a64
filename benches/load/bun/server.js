// Serves the shapes of examples/bench_server.rs with Bun, without `POST /push`: `bun server.js HOST:PORT`.

const [hostname, port] = process.argv[2].split(":");
const online = new Map();

const server = Bun.serve({
    hostname,
    port: Number(port),
    fetch(request, server) {
        const url = new URL(request.url);
        const uid = url.searchParams.get("uid");
        if (server.upgrade(request, { data: { role: url.pathname, uid: uid === null ? null : Number(uid) } })) {
            return undefined;
        }
        return new Response("expected a WebSocket upgrade", { status: 426 });
    },
    websocket: {
        perMessageDeflate: false,
        backpressureLimit: 64 << 20,
        open(socket) {
            const { role, uid } = socket.data;
            if (uid !== null) {
                online.set(uid, socket);
            }
            if (role === "/sub") {
                socket.subscribe("sub");
            }
        },
        message(socket, message) {
            switch (socket.data.role) {
                case "/echo":
                    socket.send(message);
                    break;
                case "/pub":
                    server.publish("sub", message);
                    break;
                case "/p2p":
                    online.get(JSON.parse(message).to)?.send(message);
                    break;
            }
        },
        close(socket) {
            if (online.get(socket.data.uid) === socket) {
                online.delete(socket.data.uid);
            }
        },
    },
});
