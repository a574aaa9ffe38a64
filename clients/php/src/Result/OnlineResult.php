<?php

declare(strict_types=1);

namespace Fdpush\Result;

use Fdpush\Internal\JsonObject;

/** The connections of several users. */
final class OnlineResult
{
    public function __construct(
        /** @var array<array-key, list<int>> the fds of each online uid; PHP converts the key of a numeric uid to an integer */
        public readonly array $online,
        /** @var list<string> the uids without a connection */
        public readonly array $offline,
    ) {
    }

    /** Returns whether a uid of the request has a connection. */
    public function isOnline(string|int $uid): bool
    {
        return isset($this->online[$uid]);
    }

    /**
     * Returns the fds of a uid of the request.
     *
     * @return list<int>
     */
    public function fds(string|int $uid): array
    {
        return $this->online[$uid] ?? [];
    }

    /** @internal */
    public static function read(JsonObject $answer): self
    {
        $online = $answer->objectOrNull('online') ?? throw new \UnexpectedValueException('the member "online" is missing');
        $fds = [];
        foreach (array_keys($online->members) as $uid) {
            $fds[$uid] = $online->ints((string) $uid);
        }
        return new self($fds, $answer->strings('offline'));
    }
}
