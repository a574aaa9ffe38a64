<?php

declare(strict_types=1);

namespace Fdpush\Result;

use Fdpush\Internal\JsonObject;

/** A connection in a list of members of a group. */
final class Member
{
    public function __construct(
        public readonly int $fd,
        /** The uid, or null for an anonymous connection. */
        public readonly ?string $uid,
    ) {
    }

    /** @internal */
    public static function read(JsonObject $answer): self
    {
        return new self($answer->int('fd'), $answer->stringOrNull('uid'));
    }
}
