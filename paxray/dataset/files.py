from paxray.files import digest, read_json, sha256_of, write_atomic, write_json, write_text  # noqa
