<?php

declare(strict_types=1);

namespace Fdpush;

use Fdpush\Internal\Json;

/** Issues tokens for clients of a server with `--auth jwt`: JSON Web Tokens, signed with HS256. */
final class TokenIssuer
{
    /** The minimum length of a secret (RFC 7518 section 3.2). An attacker can guess a shorter secret from a token. */
    private const SECRET_BYTES_MIN = 32;
    private const NAME_BYTES_MAX = 128;
    private const GROUPS_MAX = 1000;

    /**
     * @param string      $secret   the server's `jwt_secret`, at least 32 bytes
     * @param string|null $issuer   the claim `iss`, if the server has `jwt_issuer`
     * @param string|null $audience the claim `aud`, if the server has `jwt_audience`
     */
    public function __construct(
        #[\SensitiveParameter] private readonly string $secret,
        private readonly ?string $issuer = null,
        private readonly ?string $audience = null,
    ) {
        if (strlen($secret) < self::SECRET_BYTES_MIN) {
            throw new \InvalidArgumentException('an HS256 secret needs at least ' . self::SECRET_BYTES_MIN . ' bytes');
        }
    }

    /**
     * Returns a token. A client connects with `?token=…`, `Authorization: Bearer …` or the subprotocol `bearer.…`.
     *
     * @param string|int        $uid    the uid of the client
     * @param int               $ttl    the lifetime in seconds; 5 s after its end, the server closes the connection with 4003
     * @param array<string|int> $groups the groups that the client joins when it connects
     * @param int|null          $now    the current time in seconds since 1970; with null, the time of the clock
     */
    public function issue(string|int $uid, int $ttl = 3600, array $groups = [], ?int $now = null): string
    {
        if ($ttl < 1) {
            throw new \InvalidArgumentException('the lifetime of a token must be at least 1 s');
        }
        if (count($groups) > self::GROUPS_MAX) {
            throw new \InvalidArgumentException('group limit exceeded (' . self::GROUPS_MAX . ')');
        }
        $now ??= time();
        $claims = ['sub' => self::name('uid', $uid), 'iat' => $now, 'exp' => $now + $ttl];
        if ($groups !== []) {
            $claims['groups'] = array_map(static fn (string|int $group): string => self::name('group', $group), array_values($groups));
        }
        $claims += array_filter(['iss' => $this->issuer, 'aud' => $this->audience], static fn (?string $claim): bool => $claim !== null);
        $message = self::base64url(Json::encode(['typ' => 'JWT', 'alg' => 'HS256'])) . '.' . self::base64url(Json::encode($claims));
        return $message . '.' . self::base64url(hash_hmac('sha256', $message, $this->secret, true));
    }

    private static function name(string $kind, string|int $name): string
    {
        $name = (string) $name;
        return $name !== '' && strlen($name) <= self::NAME_BYTES_MAX
            ? $name
            : throw new \InvalidArgumentException("a $kind must have 1 to " . self::NAME_BYTES_MAX . ' bytes, not ' . strlen($name));
    }

    private static function base64url(string $bytes): string
    {
        return rtrim(strtr(base64_encode($bytes), '+/', '-_'), '=');
    }
}
