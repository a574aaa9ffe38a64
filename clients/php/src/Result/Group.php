<?php

declare(strict_types=1);

namespace Fdpush\Result;

use Fdpush\Internal\JsonObject;

/** A group in a list of groups. */
final class Group
{
    public function __construct(
        public readonly string $name,
        /** The number of members of the group. Members are connections. */
        public readonly int $count,
    ) {
    }

    /** @internal */
    public static function read(JsonObject $answer): self
    {
        return new self($answer->string('group'), $answer->int('count'));
    }
}
