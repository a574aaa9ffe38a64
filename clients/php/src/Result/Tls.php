<?php

declare(strict_types=1);

namespace Fdpush\Result;

use Fdpush\Internal\JsonObject;

/** The TLS session of a connection. */
final class Tls
{
    public function __construct(
        /** The version, such as `1.3`. */
        public readonly string $version,
        /** The cipher suite. */
        public readonly string $cipher,
    ) {
    }

    /** @internal */
    public static function read(JsonObject $answer): self
    {
        return new self($answer->string('version'), $answer->string('cipher'));
    }
}
