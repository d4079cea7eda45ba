//! Python pickles as data: the opcodes that plain values and tensors need, and not one more.
//!
//! Nothing is executed. A call is kept as a node that says which of a few known functions is called with what; a
//! global outside the short list of [`Global`], or an opcode that is not needed, ends the reading with its name.

use std::collections::HashMap;

use safetensors::tensor::Dtype;

/// Most opcodes of one pickle. A tensor takes about 25 of them, Meta's 7B 16,000; each costs at most some 60 bytes.
const MOST_OPCODES: usize = 400_000;
/// Longest module or name of a global.
const LONGEST_GLOBAL_BYTES: usize = 256;

/// Why a pickle is not read. `position` is the byte of the opcode.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PickleError {
    /// Something that weights do not need.
    #[error("{construct} at byte {position}")]
    Refused { construct: String, position: usize },
    /// Not a pickle, or one that no pickler writes.
    #[error("{reason} at byte {position} of the pickle")]
    Malformed { reason: String, position: usize },
}

/// The globals that tensors are made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Global {
    /// `collections.OrderedDict`
    OrderedDict,
    /// `torch._utils._rebuild_tensor_v2`
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`
    RebuildParameter,
    /// `torch.FloatStorage` and its like.
    Storage(Dtype),
    /// `torch.float32` and its like, as plain values in a training configuration.
    DtypeObject,
}

impl Global {
    fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("torch", "float32" | "float64" | "float16" | "bfloat16" | "int64" | "int32" | "uint8" | "bool") => {
                Self::DtypeObject
            }
            ("torch", storage) => Self::Storage(match storage.strip_suffix("Storage")? {
                "Float" => Dtype::F32,
                "BFloat16" => Dtype::BF16,
                "Half" => Dtype::F16,
                "Double" => Dtype::F64,
                "Long" => Dtype::I64,
                "Int" => Dtype::I32,
                "Short" => Dtype::I16,
                "Char" => Dtype::I8,
                "Byte" => Dtype::U8,
                "Bool" => Dtype::BOOL,
                _ => return None,
            }),
            _ => return None,
        })
    }
}

/// A value. Containers are indices, so that values are small, may be shared, and may even contain themselves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    /// Also integers beyond 64 bits, which no tensor needs.
    Other,
    Integer(i64),
    Text(&'a str),
    Global(Global),
    /// Tuple or list.
    Sequence(Node),
    Dict(Node),
    /// A call of one of the rebuilding functions.
    Call(Node),
    /// A reference to something outside the pickle: a storage.
    Persistent(Node),
}

/// Index of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Node(u32);

#[derive(Debug)]
enum Content<'a> {
    Sequence(Vec<Value<'a>>),
    Dict(Vec<(Value<'a>, Value<'a>)>),
    Call(Global, Value<'a>),
    Persistent(Value<'a>),
}

/// A pickle that was read.
#[derive(Debug)]
pub(crate) struct Pickle<'a> {
    /// What was pickled.
    pub root: Value<'a>,
    nodes: Vec<Content<'a>>,
}

impl<'a> Pickle<'a> {
    /// The elements of a tuple or list.
    pub fn sequence(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        match value {
            Value::Sequence(Node(index)) => match &self.nodes[index as usize] {
                Content::Sequence(values) => Some(values),
                _ => None,
            },
            _ => None,
        }
    }

    /// The entries of a dictionary in the order in which they were set.
    pub fn dict(&self, value: Value<'a>) -> Option<&[(Value<'a>, Value<'a>)]> {
        match value {
            Value::Dict(Node(index)) => match &self.nodes[index as usize] {
                Content::Dict(entries) => Some(entries),
                _ => None,
            },
            _ => None,
        }
    }

    /// The function and the arguments of a call.
    pub fn call(&self, value: Value<'a>) -> Option<(Global, &[Value<'a>])> {
        match value {
            Value::Call(Node(index)) => match &self.nodes[index as usize] {
                Content::Call(function, arguments) => Some((*function, self.sequence(*arguments)?)),
                _ => None,
            },
            _ => None,
        }
    }

    /// The identity of something outside.
    pub fn persistent(&self, value: Value<'a>) -> Option<Value<'a>> {
        match value {
            Value::Persistent(Node(index)) => match &self.nodes[index as usize] {
                Content::Persistent(identity) => Some(*identity),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Reads a pickle of protocol 2 to 5.
///
/// # Errors
/// The first thing that is refused or malformed.
pub(crate) fn read(bytes: &[u8]) -> Result<Pickle<'_>, PickleError> {
    Machine {
        bytes,
        position: 0,
        opcode_at: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        nodes: Vec::new(),
    }
    .run()
}

struct Machine<'a> {
    bytes: &'a [u8],
    position: usize,
    opcode_at: usize,
    stack: Vec<Value<'a>>,
    /// Lengths of the stack at the open marks: what lies below the last one is out of reach.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    nodes: Vec<Content<'a>>,
}

impl<'a> Machine<'a> {
    fn run(mut self) -> Result<Pickle<'a>, PickleError> {
        for _ in 0..MOST_OPCODES {
            self.opcode_at = self.position;
            let opcode = self.take(1)?[0];
            match opcode {
                b'.' => {
                    let root = self.pop()?;
                    return match (self.stack.is_empty(), self.marks.is_empty()) {
                        (true, true) => Ok(Pickle { root, nodes: self.nodes }),
                        _ => Err(self.malformed("values are left over")),
                    };
                }
                0x80 => match self.take(1)?[0] {
                    2..=5 => {}
                    other => return Err(self.malformed(format!("protocol {other}, where 2 to 5 are read,"))),
                },
                // A frame only says how much follows.
                0x95 => {
                    self.take(8)?;
                }
                b'(' => self.marks.push(self.stack.len()),
                b'N' | 0x88 | 0x89 => self.stack.push(Value::Other),
                b'K' => self.integer(1)?,
                b'M' => self.integer(2)?,
                b'J' => {
                    let value = i32::from_le_bytes(self.array()?);
                    self.stack.push(Value::Integer(i64::from(value)));
                }
                0x8a => {
                    let length = self.length(1)?;
                    self.long(length)?;
                }
                0x8b => {
                    let length = self.length(4)?;
                    self.long(length)?;
                }
                b'G' => {
                    self.take(8)?;
                    self.stack.push(Value::Other);
                }
                0x8c => self.text(1)?,
                b'X' => self.text(4)?,
                0x8d => self.text(8)?,
                b'C' => self.byte_string(1)?,
                b'B' => self.byte_string(4)?,
                0x8e => self.byte_string(8)?,
                b')' | b']' => self.sequence(Vec::new()),
                b't' => {
                    let values = self.pop_to_mark()?;
                    self.sequence(values);
                }
                0x85..=0x87 => {
                    let count = usize::from(opcode - 0x84);
                    let mut values = Vec::with_capacity(count);
                    for _ in 0..count {
                        values.push(self.pop()?);
                    }
                    values.reverse();
                    self.sequence(values);
                }
                b'a' => {
                    let value = self.pop()?;
                    self.append(vec![value])?;
                }
                b'e' => {
                    let values = self.pop_to_mark()?;
                    self.append(values)?;
                }
                b'}' => {
                    let node = self.node(Content::Dict(Vec::new()));
                    self.stack.push(Value::Dict(node));
                }
                b's' => {
                    let value = self.pop()?;
                    let key = self.pop()?;
                    self.set(vec![key, value])?;
                }
                b'u' => {
                    let values = self.pop_to_mark()?;
                    self.set(values)?;
                }
                b'q' => {
                    let index = self.length(1)?;
                    self.remember(index)?;
                }
                b'r' => {
                    let index = self.length(4)?;
                    self.remember(index)?;
                }
                0x94 => self.remember(self.memo.len())?,
                b'h' => {
                    let index = self.length(1)?;
                    self.recall(index)?;
                }
                b'j' => {
                    let index = self.length(4)?;
                    self.recall(index)?;
                }
                b'c' => {
                    let module = self.line()?;
                    let name = self.line()?;
                    self.global(module, name)?;
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let (Value::Text(module), Value::Text(name)) = (module, name) else {
                        return Err(self.malformed("a global whose name is not a text"));
                    };
                    self.global(module, name)?;
                }
                b'R' => self.reduce()?,
                b'b' => self.build()?,
                b'Q' => {
                    let identity = self.pop()?;
                    let node = self.node(Content::Persistent(identity));
                    self.stack.push(Value::Persistent(node));
                }
                other => {
                    let construct = match refused_opcode(other) {
                        Some(name) => format!("the opcode {name}"),
                        None => return Err(self.malformed(format!("byte {other:#04x}, which is no opcode,"))),
                    };
                    return Err(PickleError::Refused { construct, position: self.opcode_at });
                }
            }
        }
        Err(self.malformed(format!("more than {MOST_OPCODES} opcodes")))
    }

    fn malformed(&self, reason: impl Into<String>) -> PickleError {
        PickleError::Malformed { reason: reason.into(), position: self.opcode_at }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], PickleError> {
        let taken = self.bytes[self.position..].get(..count).ok_or_else(|| self.malformed("cut short"))?;
        self.position += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// An unsigned number of `width` bytes. It is compared with what is there before anything is done with it.
    fn length(&mut self, width: usize) -> Result<usize, PickleError> {
        let mut number = [0; 8];
        number[..width].copy_from_slice(self.take(width)?);
        usize::try_from(u64::from_le_bytes(number)).map_err(|_| self.malformed("a length beyond memory"))
    }

    fn line(&mut self) -> Result<&'a str, PickleError> {
        let rest = &self.bytes[self.position..];
        let rest = &rest[..rest.len().min(LONGEST_GLOBAL_BYTES + 1)];
        let end = rest.iter().position(|&byte| byte == b'\n');
        let end = end.ok_or_else(|| self.malformed("a global without an end"))?;
        self.position += end + 1;
        std::str::from_utf8(&rest[..end]).map_err(|_| self.malformed("a global that is not UTF-8"))
    }

    fn pop(&mut self) -> Result<Value<'a>, PickleError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len() > floor {
            true => Ok(self.stack.pop().unwrap_or(Value::Other)),
            false => Err(self.malformed("the stack is empty")),
        }
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value<'a>>, PickleError> {
        let mark = self.marks.pop().ok_or_else(|| self.malformed("no mark"))?;
        Ok(self.stack.split_off(mark))
    }

    fn top(&self) -> Result<Value<'a>, PickleError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack[floor..].last().copied().ok_or_else(|| self.malformed("the stack is empty"))
    }

    fn node(&mut self, content: Content<'a>) -> Node {
        self.nodes.push(content);
        Node(self.nodes.len() as u32 - 1)
    }

    fn integer(&mut self, width: usize) -> Result<(), PickleError> {
        let number = self.length(width)?;
        self.stack.push(Value::Integer(number as i64));
        Ok(())
    }

    fn long(&mut self, length: usize) -> Result<(), PickleError> {
        let bytes = self.take(length)?;
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        self.stack.push(if length <= 8 {
            let mut number = [if negative { 0xFF } else { 0 }; 8];
            number[..length].copy_from_slice(bytes);
            Value::Integer(i64::from_le_bytes(number))
        } else {
            Value::Other
        });
        Ok(())
    }

    fn text(&mut self, width: usize) -> Result<(), PickleError> {
        let length = self.length(width)?;
        let bytes = self.take(length)?;
        let text = std::str::from_utf8(bytes).map_err(|_| self.malformed("a text that is not UTF-8"))?;
        self.stack.push(Value::Text(text));
        Ok(())
    }

    fn byte_string(&mut self, width: usize) -> Result<(), PickleError> {
        let length = self.length(width)?;
        self.take(length)?;
        self.stack.push(Value::Other);
        Ok(())
    }

    fn sequence(&mut self, values: Vec<Value<'a>>) {
        let node = self.node(Content::Sequence(values));
        self.stack.push(Value::Sequence(node));
    }

    fn append(&mut self, added: Vec<Value<'a>>) -> Result<(), PickleError> {
        let error = self.malformed("an element for what is no list");
        let Value::Sequence(Node(index)) = self.top()? else { return Err(error) };
        match &mut self.nodes[index as usize] {
            Content::Sequence(values) => {
                values.extend(added);
                Ok(())
            }
            _ => Err(error),
        }
    }

    fn set(&mut self, added: Vec<Value<'a>>) -> Result<(), PickleError> {
        let error = self.malformed("an entry for what is no dictionary");
        let Value::Dict(Node(index)) = self.top()? else { return Err(error) };
        let (pairs, rest) = added.as_chunks::<2>();
        match &mut self.nodes[index as usize] {
            Content::Dict(entries) if rest.is_empty() => {
                entries.extend(pairs.iter().map(|[key, value]| (*key, *value)));
                Ok(())
            }
            _ => Err(error),
        }
    }

    fn remember(&mut self, index: usize) -> Result<(), PickleError> {
        let value = self.top()?;
        self.memo.insert(index as u32, value);
        Ok(())
    }

    fn recall(&mut self, index: usize) -> Result<(), PickleError> {
        let value = self.memo.get(&(index as u32)).copied();
        self.stack.push(value.ok_or_else(|| self.malformed(format!("nothing was remembered as {index}")))?);
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), PickleError> {
        if let Some(global) = Global::find(module, name) {
            self.stack.push(Value::Global(global));
            return Ok(());
        }
        let shown: String = format!("{module}.{name}").chars().take(120).flat_map(char::escape_debug).collect();
        Err(PickleError::Refused { construct: format!("the global {shown}"), position: self.opcode_at })
    }

    fn reduce(&mut self) -> Result<(), PickleError> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let Value::Sequence(_) = arguments else { return Err(self.malformed("a call without arguments")) };
        let value = match function {
            Value::Global(Global::OrderedDict) => Value::Dict(self.ordered_dict(arguments)?),
            Value::Global(function @ (Global::RebuildTensor | Global::RebuildParameter)) => {
                Value::Call(self.node(Content::Call(function, arguments)))
            }
            _ => return Err(self.malformed("a call of what is no function of PyTorch's tensors")),
        };
        self.stack.push(value);
        Ok(())
    }

    /// Entries follow later; PyTorch never hands them to the constructor.
    fn ordered_dict(&mut self, arguments: Value<'a>) -> Result<Node, PickleError> {
        let Value::Sequence(Node(index)) = arguments else { return Err(self.malformed("a call without arguments")) };
        match &self.nodes[index as usize] {
            Content::Sequence(values) if values.is_empty() => Ok(self.node(Content::Dict(Vec::new()))),
            _ => Err(self.malformed("an OrderedDict with arguments")),
        }
    }

    /// Attributes of an object. A module's state dict carries `_metadata` so; it is not needed.
    fn build(&mut self) -> Result<(), PickleError> {
        let attributes = self.pop()?;
        match (self.top()?, attributes) {
            (Value::Dict(_), Value::Dict(_)) => Ok(()),
            _ => Err(self.malformed("attributes of what is no OrderedDict")),
        }
    }
}

/// The opcodes that exist but are not needed, by the names of Python's `pickletools`.
fn refused_opcode(opcode: u8) -> Option<&'static str> {
    Some(match opcode {
        b'0' => "POP",
        b'1' => "POP_MARK",
        b'2' => "DUP",
        b'F' => "FLOAT",
        b'I' => "INT",
        b'L' => "LONG",
        b'P' => "PERSID",
        b'S' => "STRING",
        b'T' => "BINSTRING",
        b'U' => "SHORT_BINSTRING",
        b'V' => "UNICODE",
        b'd' => "DICT",
        b'g' => "GET",
        b'i' => "INST",
        b'l' => "LIST",
        b'o' => "OBJ",
        b'p' => "PUT",
        0x81 => "NEWOBJ",
        0x82 => "EXT1",
        0x83 => "EXT2",
        0x84 => "EXT4",
        0x8f => "EMPTY_SET",
        0x90 => "ADDITEMS",
        0x91 => "FROZENSET",
        0x92 => "NEWOBJ_EX",
        0x96 => "BYTEARRAY8",
        0x97 => "NEXT_BUFFER",
        0x98 => "READONLY_BUFFER",
        _ => return None,
    })
}
