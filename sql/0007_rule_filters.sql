-- What the filter of a rule may say: a closed list of operators and types, checked when the rule is declared.
--
-- The wire's filter grammar, pairs joined with `&`, with claims of the caller's token in place of values: `league=eq.{league}&score=gte.10`.
-- Must not know: who is allowed what (0008). Invariant: whatever passes here is read by the gateway too, and means there what it means in SQL:
-- the lists mirror src/filter (kind.rs, value.rs, parse.rs) and a test holds them together. In doubt it is refused here.

set role rowcast_owner;
insert into rowcast.migration (id, name) values (7, 'rule_filters');

-- The type under all domains. `type`: any type. Tables: pg_type.
create function rowcast._base_type(type oid) returns oid
language sql stable
set search_path = pg_catalog, pg_temp
as $base$
  with recursive t (oid, base) as (
    select t.oid, t.typbasetype from pg_type as t where t.oid = _base_type.type
    union all
    select n.oid, n.typbasetype from t join pg_type as n on n.oid = t.base
  )
  select oid from t where base = 0
$base$;
comment on function rowcast._base_type(oid) is 'type under all domains';

-- How a collation orders and compares. `collation_oid`: of a column. Tables: pg_collation, pg_database.
-- Returns: none (not a text type), c (bytes), deterministic, nondeterministic.
-- The columns of pg_database differ between releases (datlocprovider since 15, datlocale since 17), hence the JSON.
create function rowcast._collation(collation_oid oid) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $collation$
  select case
    when collation_oid = 0 then 'none'
    when collation_oid = 'pg_catalog."default"'::regcollation then (
      select case
        when coalesce(d ->> 'datlocprovider', 'c') = 'c' and d ->> 'datcollate' in ('C', 'POSIX') then 'c'
        when d ->> 'datlocprovider' = 'b' then 'c'
        else 'deterministic' end
      from (select to_jsonb(b) as d from pg_database as b where b.datname = current_database()) as b)
    else (
      select case
        when not c.collisdeterministic then 'nondeterministic'
        when c.collprovider = 'b' or c.collprovider = 'c' and c.collcollate in ('C', 'POSIX') then 'c'
        else 'deterministic' end
      from pg_collation as c where c.oid = collation_oid)
    end
$collation$;
comment on function rowcast._collation(oid) is 'how a collation compares: none, c, deterministic, nondeterministic';

-- What a filter takes a type for; mirrors Kind in src/filter/kind.rs. `type`: without domains. Tables: pg_type.
-- Returns: `text`, `int4` and so on; opaque: of Postgres's own, tested for null alone; shown: may show itself as null in JSON.
create function rowcast._kind(type oid) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $kind$
  select case
    when (select t.typtype = 'e' from pg_type as t where t.oid = _kind.type) then 'enum'
    when _kind.type in (16, 17, 19, 20, 21, 23, 25, 26, 700, 701, 1042, 1082, 1083, 1114, 1184, 1700, 2950)
      then (select t.typname::text from pg_type as t where t.oid = _kind.type)
    when _kind.type = 1043 then 'text'
    when _kind.type in (114, 3802) or _kind.type >= 16384 then 'shown'
    else 'opaque' end
$kind$;
comment on function rowcast._kind(oid) is 'what a filter takes a type for';

-- Why an operator is not exact on a column in the stream; null when it is. Mirrors Kind::refuses in src/filter/kind.rs.
-- `kind`: of rowcast._kind; `collates`: of rowcast._collation; `operator`: with `truth` for is.true, is.false and is.unknown. Tables: none.
create function rowcast._inexact(kind text, collates text, operator text) returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $inexact$
  select case
    when operator = 'null' then null
    when kind in ('opaque', 'shown') then 'only `is.null` and `not.is.null` work on this type'
    when operator = 'truth' then case when kind <> 'bool' then 'it needs a bool column' end
    when operator in ('like', 'ilike') and kind not in ('text', 'name', 'bpchar') then 'patterns match text columns only'
    when operator in ('gt', 'gte', 'lt', 'lte') and kind = 'enum' then 'the order of an enum is known to Postgres only; list the labels with `in.(...)`'
    when kind not in ('text', 'name', 'bpchar') or collates = 'c' then null
    when collates is distinct from 'deterministic' then 'what counts as equal in its collation is known to Postgres only; give the column the collation "C"'
    when operator in ('eq', 'neq', 'in', 'like') then null
    else 'the order and the cases of its collation are known to Postgres only; use `eq` or `in`, or give the column the collation "C"' end
$inexact$;
comment on function rowcast._inexact(text, text, text) is 'why an operator is not exact on a column; null when it is';

-- What a literal of a kind looks like, when `literal` does not; null when it does. Mirrors read in src/filter/value.rs: never wider.
-- `kind`: of rowcast._kind. Tables: none. An exception block: it burns no transaction id, as nothing is written.
create function rowcast._unfit(kind text, literal text) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $unfit$
declare
  v_text text := case when kind in ('text', 'name', 'bpchar', 'enum') then literal else btrim(literal, ' ') end;
  v_number text := '-?[0-9]+(\.[0-9]+)?([eE][-+]?(1000|[0-9]{1,3}))?';
  v_day text := '[0-9]{4,7}-[0-9]{2}-[0-9]{2}';
  v_clock text := '([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,6})?)?';
  v_offset text := '(Z|[-+](0[0-9]|1[0-5])(:[0-5][0-9](:[0-5][0-9])?)?)';
  v_pattern text;
  v_example text;
begin
  select p.pattern, p.example into v_pattern, v_example from (values
    ('bool', 'true|false', '`true` or `false`'),
    ('int2', '-?[0-9]+', 'a whole number such as `12`, in the range of the type'),
    ('int4', '-?[0-9]+', 'a whole number such as `12`, in the range of the type'),
    ('int8', '-?[0-9]+', 'a whole number such as `12`, in the range of the type'),
    ('oid', '0|[1-9][0-9]*', 'a whole number such as `12`'),
    ('numeric', 'NaN|-?Infinity|' || v_number, 'a number such as `12.50` or `1e6`'),
    ('float4', 'NaN|-?Infinity|' || v_number, 'a number such as `12.5`, in the range of the type'),
    ('float8', 'NaN|-?Infinity|' || v_number, 'a number such as `12.5`, in the range of the type'),
    ('uuid', '[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}', 'a uuid such as `3f2b8c1e-0d5a-4f6b-9a7c-1e2d3c4b5a69`'),
    ('date', '-?infinity|' || v_day || '( BC)?', 'a date such as `2026-11-21`'),
    ('time', v_clock || '|24:00(:00(\.0{1,6})?)?', 'a time of day such as `20:12:17`'),
    ('timestamp', format('-?infinity|%s([T ]%s)?( BC)?', v_day, v_clock), 'a time without an offset such as `2026-11-21T20:12:17`'),
    ('timestamptz', format('-?infinity|%s[T ]%s%s( BC)?', v_day, v_clock, v_offset), 'a time with an offset such as `2026-11-21T20:12:17Z`'),
    ('bytea', '\\x([0-9a-fA-F]{2})*', 'bytes in hex such as `\x00ff`')
  ) as p (kind, pattern, example) where p.kind = _unfit.kind;
  if v_pattern is null then
    return null;
  end if;
  if v_text !~ ('^(' || v_pattern || ')$') then
    return v_example;
  end if;
  execute format('select %L::pg_catalog.%I', v_text, kind);
  return null;
exception
  -- a number out of range, a day that is not in the calendar
  when data_exception then
    return v_example;
end
$unfit$;
comment on function rowcast._unfit(text, text) is 'what a literal should look like, when it does not';

-- Stop, with what is wrong with a filter. `detail`: where, if that helps; `hint`: what would be right. Tables: none.
create function rowcast._bad_filter(message text, detail text, hint text, state text default 'invalid_parameter_value') returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $bad$
begin
  raise exception using errcode = state, message = 'the filter of a rule: ' || message, detail = coalesce(detail, 'the rules are what they were'), hint = hint;
end
$bad$;
comment on function rowcast._bad_filter(text, text, text, text) is 'raises with what is wrong with a filter';

-- Test one value of a filter. `word`: as it stands there; `alone`: outside of parentheses, where quotes mean themselves; `claims`: may it be a
-- claim. The rest: the column, its kind and the operator before it. Tables: none.
create function rowcast._check_value(word text, alone boolean, claims boolean, name text, kind text, operator text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $check$
declare
  v_text text;
  v_expected text;
begin
  if word ~ '^\{.*\}$' then
    if word !~ '^\{[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*\}$' then
      perform rowcast._bad_filter(format('`%s` is no claim', left(word, 64)), null,
        'a claim is `{name}`, letters, digits and `_`, with `.` to walk into objects; a value with braces stands in double quotes: and=(col.eq."{x}")');
    elsif not claims then
      perform rowcast._bad_filter(format('`%s`: whoever has no token has no claims', word), null, 'give `anon` a filter without claims, or allow another role');
    elsif operator in ('like', 'ilike', 'is') then
      perform rowcast._bad_filter(format('`%s` takes no claim', operator), format('`%s`', word), 'compare with `eq` or `in`');
    end if;
    return;
  end if;
  v_text := word;
  if not alone and word like '"%' then
    v_text := regexp_replace(substr(word, 2, length(word) - 2), '\\(.)', '\1', 'g');
  elsif word ~ '[{}"]' then
    perform rowcast._bad_filter('a brace or a quote among other characters', format('`%s`', left(word, 64)),
      'a claim stands alone: col=eq.{claim}; a value with such a character stands in double quotes, inside parentheses: and=(col.eq."a{b")');
  end if;
  if operator = 'is' then
    -- which words there are was tested before
    return;
  elsif operator in ('like', 'ilike') then
    if length(substring(v_text from '\\*$')) % 2 = 1 then
      v_expected := 'a pattern that does not end in one `\`';
    elsif length(v_text) > 64 and position('_' in v_text) > 0 then
      v_expected := 'a pattern of at most 64 characters, as it has `_`';
    end if;
  else
    v_expected := rowcast._unfit(kind, v_text);
  end if;
  if v_expected is not null then
    perform rowcast._bad_filter(format('invalid value `%s` for column `%s`', left(v_text, 64), name), null, 'write ' || v_expected);
  end if;
end
$check$;
comment on function rowcast._check_value(text, boolean, boolean, text, text, text) is 'raises unless a value of a filter fits its column';

-- Test the filter of a rule. `target`: the table; `published`: its columns that are in the log, null: all; `claims`: may it have claims.
-- Raises with the reason and the remedy. Tables: pg_attribute.
create function rowcast._check_filter(target oid, published text[], filter text, claims boolean) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $check$
#variable_conflict use_variable
declare
  -- some claims have thousands of values, but these are in no filter
  c_bytes constant int := 2000;
  c_terms constant int := 32;
  c_list constant int := 200;
  c_depth constant int := 4;
  c_quoted constant text := '"(?:[^"\\]|\\.)*"';
  c_name constant text := '[^][(){}",.=&[:space:]]+';
  c_word constant text := '[^(),{}"&]*';
  c_claim constant text := '\{[^{}"(),&]*\}';
  c_grammar constant text := 'write it as in an address: `league=eq.{league}&score=gte.10&or=(a.eq.1,b.is.null)`';
  v_rest text := filter;
  v_depth int := 0;
  v_terms int := 0;
  v_match text[];
  v_token text;
  v_name text;
  v_column record;
  v_operator text;
  v_list text;
  v_count int;
  v_why text;
begin
  if octet_length(filter) > c_bytes then
    perform rowcast._bad_filter(format('it has more than %s bytes', c_bytes), null, 'put the list into a claim, or into a column of the table');
  end if;
  loop
    -- a group, or a term: column, operator, value
    v_token := substring(v_rest from case when v_depth = 0 then '^(?:not\.)?(?:and|or)=\(' else '^ *(?:not\.)?(?:and|or)\(' end);
    if v_token is not null then
      v_depth := v_depth + 1;
      if v_depth > c_depth then
        perform rowcast._bad_filter(format('more than %s groups within groups', c_depth), null, 'write it flatter');
      end if;
      v_rest := substr(v_rest, length(v_token) + 1);
      continue;
    end if;
    v_match := regexp_match(v_rest, case when v_depth = 0 then '^(' else '^( *)(' end || case when v_depth = 0 then ')(' else '' end
      || c_quoted || '|' || c_name || ')' || case when v_depth = 0 then '=' else '\.' end);
    if v_match is null or v_depth = 0 and v_match[2] in ('and', 'or') then
      perform rowcast._bad_filter('malformed', format('at `%s`', left(coalesce(nullif(v_rest, ''), 'the end'), 64)), c_grammar);
    end if;
    v_rest := substr(v_rest, length(v_match[1]) + length(v_match[2]) + 2);
    v_name := v_match[2];
    if v_name like '"%' then
      v_name := regexp_replace(substr(v_name, 2, length(v_name) - 2), '\\(.)', '\1', 'g');
    end if;
    select rowcast._kind(rowcast._base_type(a.atttypid)) as kind, rowcast._collation(a.attcollation) as collates, format_type(a.atttypid, a.atttypmod) as type
      into v_column
      from pg_attribute as a
      where a.attrelid = target and a.attnum > 0 and not a.attisdropped and a.attgenerated <> 'v' and a.attname::text = v_name
        and (published is null or a.attname::text = any (published));
    if not found then
      perform rowcast._bad_filter(format('unknown column `%s`', left(v_name, 64)),
        case when exists (select from pg_attribute as a where a.attrelid = target and a.attnum > 0 and not a.attisdropped and a.attname::text = v_name)
          then format('`%s` has the column, but it is not published: its values are not in the log', target::regclass) end,
        'publish it with rowcast.watch; allow(columns => ...) then says who is shown it', 'undefined_column');
    end if;
    v_terms := v_terms + 1;
    if v_terms > c_terms then
      perform rowcast._bad_filter(format('more than %s terms', c_terms), null, 'use `in.(...)` for many values of one column');
    end if;
    v_match := regexp_match(v_rest, '^(not\.)?(eq|neq|gt|gte|lt|lte|in|is|like|ilike)\.');
    if v_match is null then
      perform rowcast._bad_filter(format('unknown operator on column `%s`', v_name), format('at `%s`', left(v_rest, 64)),
        'use eq, neq, gt, gte, lt, lte, in, is, like or ilike, with `not.` before it to negate');
    end if;
    v_operator := v_match[2];
    v_rest := substr(v_rest, length(coalesce(v_match[1], '')) + length(v_operator) + 2);

    v_list := null;
    if v_operator = 'in' then
      v_token := substring(v_rest from '^' || c_claim);
      if v_token is null then
        v_list := format('(?:%s|%s|%s)', c_quoted, c_claim, c_word);
        v_token := substring(v_rest from format('^\( *%1$s *(?:, *%1$s *)*\)', v_list));
        v_list := substr(v_token, 2, length(v_token) - 2);
      end if;
    elsif v_depth = 0 then
      v_token := substring(v_rest from '^[^&]*');
    else
      v_token := substring(v_rest from format('^(?:%s|%s|%s)', c_quoted, c_claim, c_word));
    end if;
    if v_token is null then
      perform rowcast._bad_filter(format('malformed list for column `%s`', v_name), format('at `%s`', left(v_rest, 64)), 'write `in.(a,b)` or `in.{claim}`');
    end if;
    v_rest := substr(v_rest, length(v_token) + 1);
    if v_operator = 'is' and lower(v_token) not in ('null', 'true', 'false', 'unknown') and v_token !~ '^\{' then
      perform rowcast._bad_filter(format('invalid value `%s` for column `%s`', left(v_token, 64), v_name), null, 'write `is.null`, `is.true`, `is.false` or `is.unknown`');
    end if;
    v_why := rowcast._inexact(v_column.kind, v_column.collates,
      case when v_operator <> 'is' then v_operator when lower(v_token) = 'null' then 'null' else 'truth' end);
    if v_why is not null then
      perform rowcast._bad_filter(format('operator `%s` is not exact on column `%s` of type %s', v_operator, v_name, v_column.type), null, v_why, 'feature_not_supported');
    end if;
    if v_list is null then
      perform rowcast._check_value(v_token, v_depth = 0, claims, v_name, v_column.kind, v_operator);
    elsif btrim(v_list, ' ') <> '' then
      v_count := 0;
      loop
        v_count := v_count + 1;
        if v_count > c_list then
          perform rowcast._bad_filter(format('more than %s values in a list', c_list), null, 'put the list into a claim: in.{claim}');
        end if;
        v_list := ltrim(v_list, ' ');
        v_token := substring(v_list from format('^(?:%s|%s|%s)', c_quoted, c_claim, c_word));
        perform rowcast._check_value(rtrim(v_token, ' '), false, claims, v_name, v_column.kind, v_operator);
        v_list := ltrim(substr(v_list, length(v_token) + 1), ' ');
        exit when v_list = '';
        v_list := substr(v_list, 2);
      end loop;
    end if;

    -- what stands between terms
    while v_depth > 0 and v_rest ~ '^ *\)' loop
      v_rest := regexp_replace(v_rest, '^ *\)', '');
      v_depth := v_depth - 1;
    end loop;
    exit when v_depth = 0 and v_rest = '';
    if v_rest !~ (case when v_depth = 0 then '^&' else '^ *,' end) then
      perform rowcast._bad_filter('malformed', format('at `%s`', left(coalesce(nullif(v_rest, ''), 'the end'), 64)),
        c_grammar || '; a value with `,`, `)` or `&` stands in double quotes, inside parentheses');
    end if;
    v_rest := regexp_replace(v_rest, '^ *[&,]', '');
  end loop;
end
$check$;
comment on function rowcast._check_filter(oid, text[], text, boolean) is 'raises unless a filter is one that rules may have';

grant execute on function rowcast._base_type(oid), rowcast._collation(oid), rowcast._kind(oid), rowcast._inexact(text, text, text), rowcast._unfit(text, text),
  rowcast._bad_filter(text, text, text, text), rowcast._check_value(text, boolean, boolean, text, text, text),
  rowcast._check_filter(oid, text[], text, boolean) to rowcast_gateway, rowcast_admin;

reset role;
