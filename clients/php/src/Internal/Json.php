<?php

declare(strict_types=1);

namespace Fdpush\Internal;

/**
 * Encodes JSON with the flags that the server requires.
 *
 * @internal
 */
final class Json
{
    private const FLAGS = JSON_THROW_ON_ERROR | JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES | JSON_PRESERVE_ZERO_FRACTION;

    /** @throws \InvalidArgumentException the value has no JSON form, for example because a text is not UTF-8 */
    public static function encode(mixed $value): string
    {
        try {
            return json_encode($value, self::FLAGS);
        } catch (\JsonException $error) {
            throw new \InvalidArgumentException('the value cannot be encoded as JSON: ' . $error->getMessage(), 0, $error);
        }
    }

    /**
     * Encodes an array as a JSON object, also if the array is empty.
     *
     * @param array<array-key, mixed> $members
     */
    public static function encodeObject(array $members): string
    {
        return self::encode((object) $members);
    }
}
