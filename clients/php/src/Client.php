<?php

declare(strict_types=1);

namespace Fdpush;

use Fdpush\Exception\ApiException;
use Fdpush\Exception\TransportException;
use Fdpush\Http\CurlTransport;
use Fdpush\Http\StreamTransport;
use Fdpush\Http\Transport;
use Fdpush\Internal\Address;
use Fdpush\Internal\Answer;
use Fdpush\Internal\BatchRequest;
use Fdpush\Internal\Json;
use Fdpush\Internal\JsonObject;
use Fdpush\Result\ChangeResult;
use Fdpush\Result\Connection;
use Fdpush\Result\Group;
use Fdpush\Result\Member;
use Fdpush\Result\OnlineResult;
use Fdpush\Result\PushError;
use Fdpush\Result\PushResult;
use Fdpush\Result\Stats;
use Fdpush\Result\User;

/**
 * A client of the HTTP API of `fdpush serve`.
 *
 * All requests of a client use one connection, which stays open between the requests. Each method throws ApiException
 * if the server refuses the request. Each method throws TransportException if the client gets no complete answer.
 *
 * A uid or group is a string of 1 to 128 bytes of UTF-8, or an integer, which stands for its decimal text.
 */
final class Client
{
    private readonly Transport $transport;

    /**
     * @param string|Transport $server  `http://HOST:PORT`, `https://HOST:PORT`, `unix:PATH`, or a transport. With a
     *                                  transport, `$key` and `$timeout` have no effect
     * @param string           $key     the API key, or '' for a server without keys
     * @param float            $timeout the maximum time of a request in seconds
     */
    public function __construct(
        string|Transport $server = Address::DEFAULT,
        #[\SensitiveParameter] string $key = '',
        float $timeout = Address::TIMEOUT,
    ) {
        $this->transport = match (true) {
            $server instanceof Transport => $server,
            extension_loaded('curl') => new CurlTransport($server, $key, $timeout),
            default => new StreamTransport($server, $key, $timeout),
        };
    }

    /**
     * Sends one message.
     *
     * @throws ApiException
     * @throws TransportException
     */
    public function push(Push $push): PushResult
    {
        return $this->call('POST', '/api/push', $push->json(), PushResult::read(...));
    }

    /**
     * Sends many messages, and yields their results in the order of the pushes. The key of a result is the key that its
     * push has in `$pushes`.
     *
     * The method takes a push from `$pushes` only when it needs the push, and sends requests of at most `$pushesMax` pushes and 256
     * KiB. Therefore the memory use does not grow with the number of pushes. Nothing is sent before the generator is iterated.
     *
     * If a request fails, the generator first yields the results that have arrived, and then throws the exception.
     *
     * @template TKey
     * @param iterable<TKey, Push> $pushes
     * @return \Generator<TKey, PushResult|PushError>
     * @throws ApiException
     * @throws TransportException
     */
    public function batch(iterable $pushes, int $pushesMax = 1000): \Generator
    {
        $request = new BatchRequest($pushesMax);
        foreach ($pushes as $key => $push) {
            $json = $push->json();
            if (!$request->hasRoom($json)) {
                yield from $request->send($this->transport);
                $request = new BatchRequest($pushesMax);
            }
            $request->add($key, $json);
        }
        yield from $request->send($this->transport);
    }

    /** Sets the uid of a connection. The new uid replaces an earlier uid. */
    public function bind(int $fd, string|int $uid): ChangeResult
    {
        return $this->change('bind', ['fd' => $fd, 'uid' => $uid]);
    }

    /** Removes the uid of connections. The connections stay open and stay in their groups. */
    public function unbind(Target $target): ChangeResult
    {
        return $this->change('unbind', $target->memberByFdOrUid());
    }

    /**
     * Adds connections to groups.
     *
     * @param string|int|array<string|int> $groups
     */
    public function join(Target $target, string|int|array $groups): ChangeResult
    {
        return $this->change('join', $target->memberByFdOrUid() + ['groups' => array_values((array) $groups)]);
    }

    /**
     * Removes connections from groups.
     *
     * @param string|int|array<string|int> $groups
     */
    public function leave(Target $target, string|int|array $groups): ChangeResult
    {
        return $this->change('leave', $target->memberByFdOrUid() + ['groups' => array_values((array) $groups)]);
    }

    /**
     * Removes all members of groups.
     *
     * @param string|int|array<string|int> $groups
     */
    public function ungroup(string|int|array $groups): ChangeResult
    {
        return $this->change('ungroup', ['groups' => array_values((array) $groups)]);
    }

    /**
     * Closes connections after their queued messages are sent, and returns the number of selected connections.
     *
     * @param int    $code   1000 to 1003, 1007 to 1014 or 3000 to 4999
     * @param string $reason at most 123 bytes
     */
    public function close(Target $target, int $code = 1000, string $reason = ''): int
    {
        return $this->matched('close', $target->member() + ['code' => $code, 'reason' => $reason]);
    }

    /** Drops connections immediately, without a close frame, and returns the number of selected connections. */
    public function abort(Target $target): int
    {
        return $this->matched('close', $target->member() + ['abort' => true]);
    }

    /**
     * Returns the connections of users.
     *
     * @param array<string|int> $uids
     */
    public function online(array $uids): OnlineResult
    {
        $body = Json::encodeObject(['uids' => array_values($uids)]);
        return $this->call('POST', '/api/online', $body, OnlineResult::read(...));
    }

    /** Returns whether a user has a connection. */
    public function isOnline(string|int $uid): bool
    {
        return $this->online([$uid])->isOnline($uid);
    }

    /**
     * Yields all online users in the order of their uids. Reads the list in pages.
     *
     * @param string|null $after the uid after which the list begins
     * @return \Generator<int, User>
     */
    public function users(?string $after = null, int $pageSize = 1000): \Generator
    {
        return $this->pages('/api/users', 'users', User::read(...), $after, $pageSize);
    }

    /**
     * Yields the connections of a user. Reads the list in pages. For an offline user, yields nothing.
     *
     * @return \Generator<int, Connection>
     */
    public function userConnections(string|int $uid, ?int $after = null, int $pageSize = 1000): \Generator
    {
        return $this->pages('/api/users/' . self::segment($uid), 'connections', Connection::read(...), $after, $pageSize);
    }

    /**
     * Yields all groups in the order of their names. Reads the list in pages.
     *
     * @param string|null $after the name after which the list begins
     * @return \Generator<int, Group>
     */
    public function groups(?string $after = null, int $pageSize = 1000): \Generator
    {
        return $this->pages('/api/groups', 'groups', Group::read(...), $after, $pageSize);
    }

    /**
     * Yields the members of a group. Reads the list in pages.
     *
     * @return \Generator<int, Member>
     */
    public function members(string|int $group, ?int $after = null, int $pageSize = 1000): \Generator
    {
        return $this->pages('/api/groups/' . self::segment($group), 'members', Member::read(...), $after, $pageSize);
    }

    /** Returns the number of members of a group. Members are connections. */
    public function memberCount(string|int $group): int
    {
        $path = '/api/groups/' . self::segment($group) . '?limit=1';
        return $this->call('GET', $path, null, static fn (JsonObject $answer): int => $answer->int('count'));
    }

    /**
     * Yields all open WebSockets. Reads the list in pages.
     *
     * @param int|null $after the fd after which the list begins
     * @return \Generator<int, Connection>
     */
    public function connections(?int $after = null, int $pageSize = 1000): \Generator
    {
        return $this->pages('/api/connections', 'connections', Connection::read(...), $after, $pageSize);
    }

    /** Returns an open WebSocket, or null if the connection has ended. */
    public function connection(int $fd): ?Connection
    {
        return $this->callOrNull('GET', "/api/connections/$fd", null, Connection::read(...));
    }

    /**
     * Returns the attributes of a connection, or null if the connection has ended.
     *
     * @return array<array-key, mixed>|null
     */
    public function attributes(int $fd): ?array
    {
        return $this->changeAttributes('GET', $fd, null);
    }

    /**
     * Replaces the attributes of a connection. Returns the new attributes, or null if the connection has ended.
     *
     * @param array<array-key, mixed> $attributes
     * @return array<array-key, mixed>|null
     */
    public function setAttributes(int $fd, array $attributes): ?array
    {
        return $this->changeAttributes('PUT', $fd, Json::encodeObject($attributes));
    }

    /**
     * Merges members into the attributes of a connection (RFC 7386). A null value removes its member.
     *
     * Returns all attributes, or null if the connection has ended.
     *
     * @param array<array-key, mixed> $attributes
     * @return array<array-key, mixed>|null
     */
    public function mergeAttributes(int $fd, array $attributes): ?array
    {
        return $this->changeAttributes('PATCH', $fd, Json::encodeObject($attributes));
    }

    /** Returns the statistics of the server. */
    public function stats(): Stats
    {
        return $this->call('GET', '/api/stats', null, Stats::read(...));
    }

    /** Returns whether the server accepts new connections. */
    public function isReady(): bool
    {
        return $this->transport->send('GET', '/readyz')->status === 200;
    }

    /** @param array<string, mixed> $members */
    private function change(string $command, array $members): ChangeResult
    {
        return $this->call('POST', "/api/$command", Json::encodeObject($members), ChangeResult::read(...));
    }

    /** @param array<string, mixed> $members */
    private function matched(string $command, array $members): int
    {
        $read = static fn (JsonObject $answer): int => $answer->int('matched');
        return $this->call('POST', "/api/$command", Json::encodeObject($members), $read);
    }

    /** @return array<array-key, mixed>|null */
    private function changeAttributes(string $method, int $fd, ?string $body): ?array
    {
        $read = static fn (JsonObject $answer): array => $answer->members;
        return $this->callOrNull($method, "/api/connections/$fd/attributes", $body, $read);
    }

    /**
     * @template T
     * @param callable(JsonObject): T $read
     * @return \Generator<int, T>
     */
    private function pages(string $path, string $list, callable $read, string|int|null $after, int $size): \Generator
    {
        $readPage = static function (JsonObject $answer) use ($list, $read): array {
            $next = $answer->members['next'] ?? null;
            return [array_map($read, $answer->objects($list)), is_string($next) || is_int($next) ? $next : null];
        };
        do {
            $query = http_build_query(['limit' => $size] + ($after === null ? [] : ['after' => $after]), '', '&', PHP_QUERY_RFC3986);
            // The server answers 404 if an offline user is queried. In this case, the list is empty.
            [$items, $after] = $this->callOrNull('GET', "$path?$query", null, $readPage) ?? [[], null];
            foreach ($items as $item) {
                yield $item;
            }
        } while ($after !== null);
    }

    /**
     * Works like call(), but returns null if the server answers 404.
     *
     * @template T
     * @param callable(JsonObject): T $read
     * @return T|null
     */
    private function callOrNull(string $method, string $path, ?string $body, callable $read): mixed
    {
        try {
            return $this->call($method, $path, $body, $read);
        } catch (ApiException $error) {
            return $error->status === 404 && $error->errorCode === 'not_found' ? null : throw $error;
        }
    }

    /**
     * @template T
     * @param callable(JsonObject): T $read
     * @return T
     */
    private function call(string $method, string $path, ?string $body, callable $read): mixed
    {
        return Answer::read($this->transport->send($method, $path, $body), $read);
    }

    private static function segment(string|int $name): string
    {
        return rawurlencode((string) $name);
    }
}
