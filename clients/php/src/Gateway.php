<?php

declare(strict_types=1);

namespace Fdpush;

use Fdpush\Exception\UnsupportedException;
use Fdpush\Internal\Address;
use Fdpush\Result\Connection;
use Fdpush\Result\Group;
use Fdpush\Result\Member;

/**
 * The static methods of GatewayWorker's `Gateway`, over the HTTP API of `fdpush serve`.
 *
 *     use Fdpush\Gateway;      // instead of: use GatewayWorker\Lib\Gateway;
 *
 * Parameters and return values are the same as in GatewayWorker, with these differences. A `client_id` is an fd: a
 * positive integer. A uid in a return value is a string. A failed call throws ApiException or TransportException. A
 * `client_id` that is not an fd throws InvalidArgumentException. A command for a connection that has ended does
 * nothing, as in GatewayWorker.
 */
class Gateway
{
    /** The address of the API: `HOST:PORT`, `http://HOST:PORT`, `https://HOST:PORT` or `unix:PATH`. */
    public static string $registerAddress = Address::DEFAULT;
    /** The API key, or '' for a server without keys. */
    public static string $secretKey = '';
    /** With true, messages are binary frames. With false, messages are text frames. */
    public static bool $binary = false;

    /** Has no effect: curl limits a connect to 3 s. The property exists because applications of GatewayWorker may set it. */
    public static int $connectTimeout = 3;
    /** Has no effect: the connection always stays open. The property exists because applications of GatewayWorker may set it. */
    public static bool $persistentConnection = true;
    /** Has no effect: there is no registry process. The property exists because applications of GatewayWorker may set it. */
    public static bool $addressesCacheDisable = false;

    /** The maximum number of uids or fds in one request. The server accepts up to 10,000 in a body of up to 1 MiB. */
    private const NAMES_MAX = 1000;

    private static ?Client $client = null;
    /** @var array{string, string}|null the address and the key of the client; null if the application has set the client */
    private static ?array $server = null;

    /** Returns the client that all methods use. The client also has calls that GatewayWorker does not have. */
    public static function client(): Client
    {
        $server = [self::$registerAddress, self::$secretKey];
        if (self::$client === null || (self::$server !== null && self::$server !== $server)) {
            self::$client = new Client(...$server);
            self::$server = $server;
        }
        return self::$client;
    }

    /** Sets the client that all methods use, for example a client with TLS options. Null restores the default client. */
    public static function setClient(?Client $client): void
    {
        [self::$client, self::$server] = [$client, null];
    }

    /**
     * Sends a message to all connections, or to the connections of a list.
     *
     * @param array<string|int>|null            $client_id_array   an empty list selects no connection
     * @param array<string|int>|string|int|null $exclude_client_id
     */
    public static function sendToAll(
        string|int|float|\Stringable $message,
        ?array $client_id_array = null,
        array|string|int|null $exclude_client_id = null,
        bool $raw = false,
    ): void {
        self::refuseRaw($raw);
        $excluded = self::fds($exclude_client_id);
        if ($client_id_array === null) {
            $push = Push::to(Target::all());
            self::push($excluded === [] ? $push : $push->except(Target::fds($excluded)), $message);
            return;
        }
        foreach (array_chunk(array_diff(self::fds($client_id_array), $excluded), self::NAMES_MAX) as $fds) {
            self::push(Push::to(Target::fds($fds)), $message);
        }
    }

    /**
     * Sends a message to a connection. Returns whether the message is queued.
     *
     * GatewayWorker also returns true for a connection that has ended.
     */
    public static function sendToClient(string|int $client_id, string|int|float|\Stringable $message, bool $raw = false): bool
    {
        self::refuseRaw($raw);
        return self::push(Push::to(Target::fd(self::fd($client_id))), $message) > 0;
    }

    /** Works like sendToClient for the connection in Context::$client_id. */
    public static function sendToCurrentClient(string|int|float|\Stringable $message, bool $raw = false): bool
    {
        return self::sendToClient(self::current(__FUNCTION__), $message, $raw);
    }

    /**
     * Sends a message to every connection of one or several users. A uid that is listed twice gets the message once.
     *
     * @param string|int|array<string|int> $uid
     */
    public static function sendToUid(string|int|array $uid, string|int|float|\Stringable $message, bool $raw = false): void
    {
        self::refuseRaw($raw);
        $uids = array_unique(array_map(strval(...), (array) $uid));
        foreach (array_chunk($uids, self::NAMES_MAX) as $chunk) {
            self::push(Push::to(Target::uids($chunk)), $message);
        }
    }

    /**
     * Sends a message to the members of one or several groups. A member of two groups gets the message once.
     *
     * @param string|int|array<string|int>      $group
     * @param array<string|int>|string|int|null $exclude_client_id
     */
    public static function sendToGroup(
        string|int|array $group,
        string|int|float|\Stringable $message,
        array|string|int|null $exclude_client_id = null,
        bool $raw = false,
    ): void {
        self::refuseRaw($raw);
        $push = Push::to(Target::groups((array) $group));
        $excluded = self::fds($exclude_client_id);
        self::push($excluded === [] ? $push : $push->except(Target::fds($excluded)), $message);
    }

    /** Sets the uid of a connection. The new uid replaces an earlier uid. */
    public static function bindUid(string|int $client_id, string|int $uid): void
    {
        self::client()->bind(self::fd($client_id), $uid);
    }

    /** Removes the uid of a connection. Neither fdpush nor GatewayWorker checks whether the connection has this uid. */
    public static function unbindUid(string|int $client_id, string|int $uid): void
    {
        self::client()->unbind(Target::fd(self::fd($client_id)));
    }

    /** Adds a connection to a group. */
    public static function joinGroup(string|int $client_id, string|int $group): void
    {
        self::client()->join(Target::fd(self::fd($client_id)), $group);
    }

    /** Removes a connection from a group. */
    public static function leaveGroup(string|int $client_id, string|int $group): void
    {
        self::client()->leave(Target::fd(self::fd($client_id)), $group);
    }

    /** Removes all members of a group. */
    public static function ungroup(string|int $group): void
    {
        self::client()->ungroup($group);
    }

    /** Returns 1 if the connection is open, else 0. */
    public static function isOnline(string|int $client_id): int
    {
        return (int) (self::client()->connection(self::fd($client_id)) !== null);
    }

    /** Returns 1 if the user has a connection, else 0. */
    public static function isUidOnline(string|int $uid): int
    {
        return (int) self::client()->isOnline($uid);
    }

    /**
     * Returns the connections of a user.
     *
     * @return list<int>
     */
    public static function getClientIdByUid(string|int $uid): array
    {
        return self::client()->online([$uid])->fds($uid);
    }

    /**
     * Returns the connections of each user. A user who is offline has an empty list.
     *
     * @param array<string|int> $uids
     * @return array<array-key, list<int>>
     */
    public static function batchGetClientIdByUid(array $uids): array
    {
        $fds = [];
        foreach (array_chunk($uids, self::NAMES_MAX) as $chunk) {
            $online = self::client()->online($chunk);
            foreach ($chunk as $uid) {
                $fds[$uid] = $online->fds($uid);
            }
        }
        return $fds;
    }

    /** Returns the uid of a connection, or null if the connection has no uid or has ended. */
    public static function getUidByClientId(string|int $client_id): ?string
    {
        return self::client()->connection(self::fd($client_id))?->uid;
    }

    /** Returns the number of open connections. */
    public static function getAllClientIdCount(): int
    {
        return self::client()->stats()->open;
    }

    /** An alias of getAllClientIdCount. */
    public static function getAllClientCount(): int
    {
        return self::getAllClientIdCount();
    }

    /**
     * Returns all open connections.
     *
     * @return array<int, int> the fds; the key of each fd is the fd itself
     */
    public static function getAllClientIdList(): array
    {
        return self::map(self::client()->connections(), static fn (Connection $connection): int => $connection->fd);
    }

    /**
     * Returns the session of each connection, or of each member of a group. Sends one request for each connection.
     *
     * @return array<int, array<array-key, mixed>> the sessions by fd
     */
    public static function getAllClientSessions(string|int|null $group = ''): array
    {
        $sessions = [];
        foreach (self::isAll($group) ? self::getAllClientIdList() : self::getClientIdListByGroup((string) $group) as $fd) {
            $session = self::client()->attributes($fd);
            if ($session !== null) {
                $sessions[$fd] = $session;
            }
        }
        return $sessions;
    }

    /**
     * Works like getAllClientSessions.
     *
     * @deprecated
     * @return array<int, array<array-key, mixed>>
     */
    public static function getAllClientInfo(string|int|null $group = ''): array
    {
        self::warn(__FUNCTION__, 'getAllClientSessions');
        return self::getAllClientSessions($group);
    }

    /**
     * Returns all online uids.
     *
     * @return array<array-key, string> the uids; the key of each uid is the uid itself
     */
    public static function getAllUidList(): array
    {
        return self::map(self::client()->users(), static fn (Result\User $user): string => $user->uid);
    }

    /** Returns the number of online uids. */
    public static function getAllUidCount(): int
    {
        return self::client()->stats()->users;
    }

    /**
     * Returns the members of one or several groups.
     *
     * @param string|int|array<string|int> $group
     * @return array<int, int> the fds; the key of each fd is the fd itself
     */
    public static function getClientIdListByGroup(string|int|array $group): array
    {
        return self::map(self::members($group), static fn (Member $member): int => $member->fd);
    }

    /** Returns the number of members of a group. If `$group` is empty, returns the number of all open connections. */
    public static function getClientIdCountByGroup(string|int|null $group = ''): int
    {
        return self::isAll($group) ? self::getAllClientIdCount() : self::client()->memberCount((string) $group);
    }

    /** An alias of getClientIdCountByGroup. */
    public static function getClientCountByGroup(string|int|null $group = ''): int
    {
        return self::getClientIdCountByGroup($group);
    }

    /**
     * Returns the uids of the members of one or several groups.
     *
     * @param string|int|array<string|int> $group
     * @return array<array-key, string> the uids; the key of each uid is the uid itself
     */
    public static function getUidListByGroup(string|int|array $group): array
    {
        return self::map(self::members($group), static fn (Member $member): ?string => $member->uid);
    }

    /**
     * Returns the number of different uids in one or several groups.
     *
     * @param string|int|array<string|int> $group
     */
    public static function getUidCountByGroup(string|int|array $group): int
    {
        return count(self::getUidListByGroup($group));
    }

    /**
     * Returns the session of each member of a group.
     *
     * @return array<int, array<array-key, mixed>> the sessions by fd
     */
    public static function getClientSessionsByGroup(string|int $group): array
    {
        return self::isAll($group) ? [] : self::getAllClientSessions($group);
    }

    /**
     * Works like getClientSessionsByGroup.
     *
     * @deprecated
     * @return array<int, array<array-key, mixed>>
     */
    public static function getClientInfoByGroup(string|int $group): array
    {
        self::warn(__FUNCTION__, 'getClientSessionsByGroup');
        return self::getClientSessionsByGroup($group);
    }

    /**
     * Returns all groups.
     *
     * @return array<array-key, string> the groups; the key of each group is the group itself
     */
    public static function getAllGroupIdList(): array
    {
        return self::map(self::client()->groups(), static fn (Group $group): string => $group->name);
    }

    /**
     * Returns the number of members of each group.
     *
     * @return array<array-key, int>
     */
    public static function getAllGroupClientIdCount(): array
    {
        $counts = [];
        foreach (self::client()->groups() as $group) {
            $counts[$group->name] = $group->count;
        }
        return $counts;
    }

    /**
     * Returns the members of each group.
     *
     * @return array<array-key, array<int, int>>
     */
    public static function getAllGroupClientIdList(): array
    {
        $groups = [];
        foreach (self::client()->connections() as $connection) {
            foreach ($connection->groups as $group) {
                $groups[$group][$connection->fd] = $connection->fd;
            }
        }
        return $groups;
    }

    /**
     * Returns the uids of each group.
     *
     * @return array<array-key, array<array-key, string>>
     */
    public static function getAllGroupUidList(): array
    {
        $groups = [];
        foreach (self::client()->connections() as $connection) {
            foreach ($connection->uid === null ? [] : $connection->groups as $group) {
                $groups[$group][$connection->uid] = $connection->uid;
            }
        }
        return $groups;
    }

    /**
     * Returns the number of different uids in each group.
     *
     * @return array<array-key, int>
     */
    public static function getAllGroupUidCount(): array
    {
        return array_map(count(...), self::getAllGroupUidList());
    }

    /**
     * Sends a last message, then closes a connection after its queued messages are sent.
     *
     * Returns whether the connection was open. Without `$message`, there is no last message.
     */
    public static function closeClient(string|int $client_id, string|int|float|\Stringable|null $message = null): bool
    {
        if ($message !== null) {
            self::sendToClient($client_id, $message);
        }
        return self::client()->close(Target::fd(self::fd($client_id))) > 0;
    }

    /** Works like closeClient for the connection in Context::$client_id. */
    public static function closeCurrentClient(string|int|float|\Stringable|null $message = null): bool
    {
        return self::closeClient(self::current(__FUNCTION__), $message);
    }

    /**
     * Drops a connection immediately, without a close frame. Returns whether the connection was open.
     *
     * GatewayWorker has the same misspelled name.
     */
    public static function destoryClient(string|int $client_id): bool
    {
        return self::client()->abort(Target::fd(self::fd($client_id))) > 0;
    }

    /** Works like destoryClient for the connection in Context::$client_id. */
    public static function destoryCurrentClient(): bool
    {
        return self::destoryClient(self::current(__FUNCTION__));
    }

    /**
     * Sets the session of a connection. The new session replaces an earlier session.
     *
     * @param array<array-key, mixed> $session
     */
    public static function setSession(string|int $client_id, array $session): void
    {
        self::client()->setAttributes(self::fd($client_id), $session);
    }

    /**
     * Merges members into the session of a connection (RFC 7386): null removes a member, and a list replaces the
     * earlier list.
     *
     * @param array<array-key, mixed> $session
     */
    public static function updateSession(string|int $client_id, array $session): void
    {
        self::client()->mergeAttributes(self::fd($client_id), $session);
    }

    /**
     * Returns the session of a connection, or null if the connection has ended.
     *
     * @return array<array-key, mixed>|null
     */
    public static function getSession(string|int $client_id): ?array
    {
        return self::client()->attributes(self::fd($client_id));
    }

    /** Always throws, because fdpush stores no serialized sessions. */
    public static function setSocketSession(string|int $client_id, string $session_str): never
    {
        throw new UnsupportedException('setSocketSession is internal to GatewayWorker, which stores serialized PHP: use setSession');
    }

    /** Always throws, because fdpush has no BusinessWorker processes. */
    public static function setBusinessWorker(object $business_worker_instance): never
    {
        throw new UnsupportedException('there are no BusinessWorker processes: events arrive by webhook, see docs/webhooks.md');
    }

    /** Sends a message, and returns the number of connections whose queue has the message. */
    private static function push(Push $push, string|int|float|\Stringable $message): int
    {
        $message = (string) $message;
        return self::client()->push(self::$binary ? $push->binary($message) : $push->text($message))->queued;
    }

    private static function refuseRaw(bool $raw): void
    {
        if ($raw) {
            throw new UnsupportedException('$raw is not supported: the server encodes each frame; for binary frames, set Gateway::$binary');
        }
    }

    private static function fd(string|int $client_id): int
    {
        $fd = filter_var($client_id, FILTER_VALIDATE_INT, ['options' => ['min_range' => 1]]);
        return is_int($fd) ? $fd : throw new \InvalidArgumentException("client_id must be an fd, a positive integer: \"$client_id\"");
    }

    /**
     * @param array<string|int>|string|int|null $client_ids
     * @return list<int>
     */
    private static function fds(array|string|int|null $client_ids): array
    {
        return array_values(array_unique(array_map(self::fd(...), (array) $client_ids)));
    }

    private static function current(string $method): string|int
    {
        return Context::$client_id
            ?? throw new UnsupportedException("$method needs a current client: set Fdpush\\Context::\$client_id to the fd of the event");
    }

    private static function isAll(string|int|null $group): bool
    {
        return $group === null || $group === '';
    }

    /**
     * @param string|int|array<string|int> $groups
     * @return \Generator<int, Member>
     */
    private static function members(string|int|array $groups): \Generator
    {
        foreach ((array) $groups as $group) {
            foreach (self::client()->members($group) as $member) {
                yield $member;
            }
        }
    }

    /**
     * Returns an array that has the value of each item as a key and as a value. Omits items whose value is null.
     *
     * @template T
     * @template V of array-key
     * @param iterable<T> $items
     * @param callable(T): ?V $value
     * @return array<V, V>
     */
    private static function map(iterable $items, callable $value): array
    {
        $map = [];
        foreach ($items as $item) {
            $key = $value($item);
            if ($key !== null) {
                $map[$key] = $key;
            }
        }
        return $map;
    }

    private static function warn(string $method, string $instead): void
    {
        trigger_error("Gateway::$method is deprecated: use Gateway::$instead", E_USER_DEPRECATED);
    }
}
