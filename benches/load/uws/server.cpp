// Serves the shapes of examples/bench_server.rs with uWebSockets: `server HOST:PORT`, or `server-tls HOST:PORT CERT KEY`.
// With `server deflate HOST:PORT`, clients may negotiate permessage-deflate, with the shared compressor.

#include <charconv>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "App.h"

enum class Role { Echo, Sub, Pub, P2p };

struct Session {
    Role role;
    // A negative number means no uid.
    long uid;
};

#ifdef LIBUS_NO_SSL
constexpr bool is_tls = false;
#else
constexpr bool is_tls = true;
#endif

using App = uWS::TemplatedApp<is_tls>;
using Socket = uWS::WebSocket<is_tls, true, Session>;

static std::unordered_map<long, Socket *> online;
static bool deflates = false;

static long number(std::string_view text, long otherwise) {
    std::from_chars(text.data(), text.data() + text.size(), otherwise);
    return otherwise;
}

static bool send(long uid, std::string_view message, uWS::OpCode opcode) {
    auto found = online.find(uid);
    if (found == online.end()) {
        return false;
    }
    found->second->send(message, opcode);
    return true;
}

static App::WebSocketBehavior<Session> behavior(Role role) {
    App::WebSocketBehavior<Session> behavior;
    behavior.compression = deflates ? uWS::SHARED_COMPRESSOR : uWS::DISABLED;
    behavior.maxPayloadLength = 1 << 20;
    behavior.maxBackpressure = 64 << 20;
    behavior.idleTimeout = 120;
    behavior.sendPingsAutomatically = true;
    behavior.upgrade = [role](auto *response, auto *request, auto *context) {
        Session session{role, number(request->getQuery("uid"), -1)};
        response->template upgrade<Session>(std::move(session), request->getHeader("sec-websocket-key"),
                                            request->getHeader("sec-websocket-protocol"),
                                            request->getHeader("sec-websocket-extensions"), context);
    };
    behavior.open = [](auto *socket) {
        Session *session = socket->getUserData();
        if (session->uid >= 0) {
            online[session->uid] = socket;
        }
        if (session->role == Role::Sub) {
            socket->subscribe("sub");
        }
    };
    behavior.close = [](auto *socket, int, std::string_view) {
        auto found = online.find(socket->getUserData()->uid);
        if (found != online.end() && found->second == socket) {
            online.erase(found);
        }
    };
    return behavior;
}

int main(int count, char **arguments) {
    deflates = count > 1 && std::string_view(arguments[1]) == "deflate";
    if (deflates) {
        ++arguments;
        --count;
    }
    std::string_view address = count > 1 ? arguments[1] : "127.0.0.1:9501";
    auto colon = address.rfind(':');
    std::string host(address.substr(0, colon));
    int port = static_cast<int>(number(address.substr(colon + 1), 0));

    uWS::SocketContextOptions options;
    if (is_tls && count > 3) {
        options.cert_file_name = arguments[2];
        options.key_file_name = arguments[3];
    }
    App app(options);
    auto echo = behavior(Role::Echo), sub = behavior(Role::Sub), pub = behavior(Role::Pub), p2p = behavior(Role::P2p);
    echo.message = [](auto *socket, std::string_view message, uWS::OpCode opcode) { socket->send(message, opcode); };
    sub.message = [](auto *, std::string_view, uWS::OpCode) {};
    pub.message = [&app](auto *, std::string_view message, uWS::OpCode opcode) { app.publish("sub", message, opcode, deflates); };
    p2p.message = [](auto *, std::string_view message, uWS::OpCode opcode) {
        constexpr std::string_view to = "{\"to\":";
        if (message.starts_with(to)) {
            send(number(message.substr(to.size()), -1), message, opcode);
        }
    };
    app.ws<Session>("/echo", std::move(echo))
        .ws<Session>("/sub", std::move(sub))
        .ws<Session>("/pub", std::move(pub))
        .ws<Session>("/p2p", std::move(p2p))
        .post("/push",
              [](auto *response, auto *request) {
                  long uid = number(request->getQuery("uid"), -1);
                  auto body = std::make_shared<std::string>();
                  response->onAborted([] {});
                  response->onData([response, uid, body](std::string_view part, bool is_last) {
                      body->append(part);
                      if (!is_last) {
                          return;
                      }
                      if (send(uid, *body, uWS::OpCode::TEXT)) {
                          response->end("queued\n");
                      } else {
                          response->writeStatus("404 Not Found")->end("offline\n");
                      }
                  });
              })
        .listen(host, port,
                [address](auto *socket) {
                    if (!socket) {
                        std::cerr << "cannot listen on " << address << "\n";
                        std::exit(1);
                    }
                })
        .run();
}
