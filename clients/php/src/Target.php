<?php

declare(strict_types=1);

namespace Fdpush;

/** A selection of connections: by fd, by uid, by group, or all. */
final class Target
{
    /**
     * @param string                           $kind  the name of the command's member that selects the connections, such as `uid`
     * @param list<string|int>|bool|string|int $value the value of the member `$kind`
     */
    private function __construct(private readonly string $kind, private readonly array|bool|string|int $value)
    {
    }

    /** Selects one connection. */
    public static function fd(int $fd): self
    {
        return new self('fd', $fd);
    }

    /**
     * Selects several connections.
     *
     * @param array<int> $fds
     */
    public static function fds(array $fds): self
    {
        return new self('fds', array_values($fds));
    }

    /** Selects every connection of a user. */
    public static function uid(string|int $uid): self
    {
        return new self('uid', $uid);
    }

    /**
     * Selects every connection of several users.
     *
     * @param array<string|int> $uids
     */
    public static function uids(array $uids): self
    {
        return new self('uids', array_values($uids));
    }

    /** Selects the members of a group. */
    public static function group(string|int $group): self
    {
        return new self('group', $group);
    }

    /**
     * Selects the members of several groups. A member of two groups is selected once.
     *
     * @param array<string|int> $groups
     */
    public static function groups(array $groups): self
    {
        return new self('groups', array_values($groups));
    }

    /** Selects every open WebSocket. */
    public static function all(): self
    {
        return new self('all', true);
    }

    /**
     * Returns the member of a command that selects the connections.
     *
     * @internal
     * @return array<string, list<string|int>|bool|string|int>
     */
    public function member(): array
    {
        return [$this->kind => $this->value];
    }

    /**
     * Returns the member that selects the connections by fd or uid. Throws if the target is a group or all connections.
     *
     * @internal
     * @return array<string, list<string|int>|bool|string|int>
     */
    public function memberByFdOrUid(): array
    {
        return in_array($this->kind, ['fd', 'fds', 'uid', 'uids'], true)
            ? $this->member()
            : throw new \InvalidArgumentException("this command selects connections by fd or uid, not by $this->kind");
    }

    /**
     * Returns the members of `except` that select the connections of all targets.
     *
     * @internal
     * @return array<string, list<string|int>>
     */
    public static function except(self ...$targets): array
    {
        $members = [];
        foreach ($targets as $target) {
            if (is_bool($target->value)) {
                throw new \InvalidArgumentException('a push cannot exclude all connections');
            }
            $name = rtrim($target->kind, 's') . 's';
            $members[$name] = [...$members[$name] ?? [], ...array_values((array) $target->value)];
        }
        return $members;
    }
}
